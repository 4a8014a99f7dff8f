"""Text for terminals."""


def printable(text: str) -> str:
    """Return `text` with control characters escaped, which a file name could contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float) -> str:
    """Describe a duration in the unit that fits: "1.5 hours"."""
    for unit, length in {"days": 86400, "hours": 3600, "minutes": 60}.items():
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
