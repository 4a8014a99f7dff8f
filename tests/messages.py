"""Match a message by what it names, in any wording: files, flags, values, and at most a term of the field.

A part is a regular expression. The terms below are alternatives that one check may be worded with.
"""

import re

CORRUPT = "damaged|corrupt|digest|SHA-256|checksum"
EXISTS = "exists|already"
MISSING = "missing|lacks|[Nn]o such|not found|there is no|absent|n[o']t (have|contain|exist)(?! exactly)"
NOT_AN_IMAGE = "JPEG.* PNG|PNG.* JPEG"
NOT_CONTIGUOUS = "not (one |a )?contiguous|chunk|filter|compress"
NOT_REGULAR = "[Rr]egular"
REPEATED = "twice|duplicate|repeat|more than once"
TRUNCATED = "cut short|truncated|incomplete|unexpected end"
UNEXPECTED = "unexpected|not expected|unknown"
TO = "(->|to)"  # between a value and the one that it becomes


def naming(*parts):
    """A regular expression for a text that holds all of `parts`, in any order."""
    return "".join(f"(?=(?s:.)*(?:{part}))" for part in parts)


def assert_names(text, *parts):
    """The text holds all of `parts`, in any order."""
    assert re.search(naming(*parts), text), text


def assert_refused(done, *parts):
    """The stderr of a finished command is one line that holds all of `parts`."""
    assert done.stderr.count("\n") == 1, done.stderr
    assert_names(done.stderr, *parts)
