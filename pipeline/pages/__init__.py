"""Pages for the browser: single HTML files with all they need inside, which load nothing."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(__name__, render="page", runpage="Progress RunFacts progress_part run_page")
