"""gRPC operations: keys of methods, from the paths of calls and from settings. Pure.

The key of an operation is ``pkg.Service:Method``; ``pkg.Service:*`` covers all other methods of a service. Settings and
records write a slash instead of the colon, as paths do.
"""

from __future__ import annotations

import re
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.operation import ANY_NAME, OTHER, Operations

_SERVICE: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_METHOD: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_is_path: Final = re.compile(rf"/({_SERVICE})/({_METHOD})").fullmatch
_is_word: Final = re.compile(rf"/?({_SERVICE})/({_METHOD}|\*)").fullmatch


def key_of_path(path: str, query: bytes) -> str:
    """Return the operation key of a call.

    Raises:
        Denied: OPERATION_MALFORMED unless ``path`` is ``/service/Method`` and ``query`` is empty.
    """
    match = _is_path(path)
    if match is None or query:
        raise Denied(Reason.OPERATION_MALFORMED, "the path is not /service/Method, or has a query")
    return f"{match[1]}:{match[2]}"


def key_of_word(word: str) -> str:
    """Return the operation key of a word in the settings, ``pkg.Service/Method`` or ``pkg.Service/*``.

    Raises:
        ValueError: any other word; the message has the form "problem; fix".
    """
    match = _is_word(word)
    if match is None:
        raise ValueError("is not a method of a service; write pkg.Service/Method, or pkg.Service/*")
    return f"{match[1]}:{match[2]}"


def is_word(word: str) -> bool:
    """True if ``key_of_word`` accepts ``word``."""
    return _is_word(word) is not None


def label_of(operations: Operations[object], key: str) -> str:
    """Return an operation's name for records: its path if listed, ``/service/other`` for a listed service, or OTHER."""
    service = key.partition(":")[0]
    known = operations.label(key)
    if known != key and f"{service}:{ANY_NAME}" not in operations.keys:
        return OTHER
    return "/" + known.replace(":", "/")
