"""Text for terminals."""


def printable(text: str) -> str:
    """Return `text` with control characters escaped, which a file name could contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
