"""Text for a terminal."""


def printable(text: str) -> str:
    """`text` with whatever would steer a terminal, as a name from a file may, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
