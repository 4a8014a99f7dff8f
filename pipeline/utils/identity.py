"""Identities of runs, processes and requests."""

import re
import secrets
import time


def new_identity() -> str:
    """Return a new identity: the time in UTC with microseconds, and 8 random digits."""
    now = time.time_ns()
    seconds = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 10**9))
    return f"{seconds}-{now % 10**9 // 1000:06d}-{secrets.token_hex(4)}"


def is_identity(value: object) -> bool:
    """Return whether `value` is a result of `new_identity`."""
    return isinstance(value, str) and re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{8}", value, re.ASCII) is not None
