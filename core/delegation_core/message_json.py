"""Parser for the JSON of a message that is forwarded: an unsigned object, without duplicate members."""

from __future__ import annotations

import re
from typing import Final

import orjson

from delegation_core.strict_json import StrictJsonError, may_nest

# An escaped colon in a string: the escape follows an even number of backslashes.
_ESCAPED_COLON: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u003[aA]")
_MOST_CONTAINERS: Final = 100_000  # each takes about 100 bytes, and garbage collection time


def parse_message_object(document: bytes, *, max_bytes: int) -> dict[str, object]:
    """Parse one object of an unsigned, forwarded message: as ``parse_object``, but any finite number and more depth.

    Uses orjson, since the event loop waits: at most 0.1 s for a MiB. orjson accepts duplicate members (the last
    counts); they are detected because the value, serialized again, has fewer colons than the document.

    Raises:
        StrictJsonError: as ``parse_object``; objects and arrays nested more than 254 deep, or more than 100 000 of them
            (brackets in strings count too).
    """
    if len(document) > max_bytes:
        raise StrictJsonError("the document is too large")
    if may_nest(document, _MOST_CONTAINERS):
        raise StrictJsonError("the document has too many objects and arrays")
    try:
        value = orjson.loads(document)
        written = orjson.dumps(value)
    except orjson.JSONDecodeError:
        raise StrictJsonError("the document is not JSON") from None
    except orjson.JSONEncodeError:
        raise StrictJsonError("the document is nested too deeply") from None
    if not isinstance(value, dict):
        raise StrictJsonError("the document is not an object")
    colons = document.count(b":")
    if b"\\u003" in document:
        colons += len(_ESCAPED_COLON.findall(document))
    if written.count(b":") != colons:
        raise StrictJsonError("an object has two members with one name", duplicate=True)
    return value
