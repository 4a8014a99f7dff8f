"""Render a page: a template filled with text, its style and its script inside."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.utils.text import duration, printable


def page(template: str, **values: object) -> str:
    """Return the HTML that the file `template` makes of `values`. Text is shown as it is, whatever it holds."""
    return _environment().get_template(template).render(values)


def number(value: float | None) -> str:
    """Return a number with at most five significant digits; a dash for None."""
    return "-" if value is None else f"{value:.5g}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,  # a run shows its page as it was made at the start, whatever becomes of the code
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"duration": duration, "number": number}
    environment.globals |= {"hash_of": _hash_of, "inline": _inline}
    return environment


def _shown(value: object) -> object:
    """Escape control characters, which HTML can't hold, in a text or path."""
    if isinstance(value, (str, PurePath)) and not isinstance(value, Markup):
        return printable(str(value))
    return value


@cache
def _inline(name: str) -> Markup:
    """Return the style or script `name` of this package."""
    return Markup(files("pipeline.pages").joinpath("templates", name).read_text("utf-8"))  # noqa: S704  (not a user's text)


@cache
def _hash_of(name: str) -> str:
    """Return the hash of a script, by which a page's policy allows it, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(_inline(name).encode()).digest()).decode()}"
