"""Text for terminals."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest


def printable(text: str) -> str:
    """Return `text` with control characters escaped, which a file name could contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float) -> str:
    """Describe a duration in the unit that fits: "1.5 hours"."""
    for unit, length in {"days": 86400, "hours": 3600, "minutes": 60}.items():
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def table(rows: Sequence[Sequence[str]], width: int, widest: int = 30) -> list[str]:
    """Lay out `rows` as lines: a row of heads, then rows of a label and its cells.

    Columns that don't fit in `width` characters follow below, beside the labels again. Cells of more than `widest`
    characters are wrapped.
    """
    cells = [[textwrap.wrap(cell, widest, break_on_hyphens=False) or [""] for cell in row] for row in rows]
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    blocks = [[0]]
    for column in range(1, len(widths)):
        if len(blocks[-1]) > 1 and sum(widths[other] + 2 for other in blocks[-1]) + widths[column] > width:
            blocks.append([0])
        blocks[-1].append(column)
    lines = []
    for block in blocks:
        lines += [""] if lines else []
        for row in cells:
            for parts in zip_longest(*(row[column] for column in block), fillvalue=""):
                padded = (part.ljust(widths[column]) for part, column in zip(parts, block, strict=True))
                lines.append("  ".join(padded).rstrip())
    return lines
