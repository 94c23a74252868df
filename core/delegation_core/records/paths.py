"""Finds ids in URL paths: segments that are numbers, UUIDs, long hexadecimal or random text. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

ANY_ID: Final = "*"

_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_LONG: Final = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # a UUID
    r"|[0-9a-fA-F]{16,}|[0-9]{20,}"
    r"|[A-Za-z]{1,12}_(?=[A-Za-z]*[0-9])[A-Za-z0-9]{10,}"  # cus_9s6XKzkNRiz8i3
    r"|(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_]{20,}"  # a ULID, base62
    r"|(?=[^0-9]*[0-9])(?=[^A-Z]*[A-Z])(?=[^a-z]*[a-z])[A-Za-z0-9_-]{20,}"  # base64url
)


class IdInPath(NamedTuple):
    """The first id of a path. ``before``: the path up to the id. ``long``: True unless it is a short number."""

    before: str
    long: bool


def first_id(path: str) -> IdInPath | None:
    """Return the first segment that is a number, a UUID, long hexadecimal or long random text; None without one."""
    end = 0
    for segment in path.split("/")[1:]:
        if _LONG.fullmatch(segment):
            return IdInPath(path[:end] or "/", long=True)
        if _NUMBER.fullmatch(segment):
            return IdInPath(path[:end] or "/", long=False)
        end += 1 + len(segment)
    return None


def mask_ids(path: str) -> str:
    """Replace each id in a path by ``*``, so that calls of one operation have the same path."""
    segments = path.split("/")
    return "/".join(ANY_ID if _LONG.fullmatch(one) or _NUMBER.fullmatch(one) else one for one in segments)
