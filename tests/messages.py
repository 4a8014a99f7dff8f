"""Match messages by the files, flags and values that they name, plus at most one technical term, whatever the wording.

Parts are regular expressions. The constants are alternative wordings of one check.
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
TO = "(->|to)"  # between an old and a new value


def naming(*parts):
    """Return a regular expression that matches a text with all `parts`, in any order."""
    return "".join(f"(?=(?s:.)*(?:{part}))" for part in parts)


def assert_names(text, *parts):
    """Assert that the text holds all `parts`, in any order."""
    assert re.search(naming(*parts), text), text


def assert_refused(done, *parts):
    """Assert that a finished command printed one line to stderr, which holds all `parts`."""
    assert done.stderr.count("\n") == 1, done.stderr
    assert_names(done.stderr, *parts)
