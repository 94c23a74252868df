"""Operations of gRPC: a method of a service, named by the path of its call. Pure.

The key of an operation is ``pkg.Service:Method``, so that ``pkg.Service:*`` is that of all other methods of a service.
The settings and records write it as the path does, with a slash.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.delegation.operation import ANY_NAME, OTHER, Operations
from sidecar.errors import Denied, Reason

_SERVICE: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_METHOD: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_is_path: Final = re.compile(rf"/({_SERVICE})/({_METHOD})").fullmatch
_is_word: Final = re.compile(rf"/?({_SERVICE})/({_METHOD}|\*)").fullmatch


def key_of_path(path: str, query: bytes) -> str:
    """Return the key of the operation that a call asks for.

    Raises:
        Denied: OPERATION_MALFORMED, the path names no method of a service.
    """
    match = _is_path(path)
    if match is None or query:
        raise Denied(Reason.OPERATION_MALFORMED, "the path is not that of a method of a service")
    return f"{match[1]}:{match[2]}"


def key_of_word(word: str) -> str:
    """Return the key that a word of the settings stands for: ``pkg.Service/Method``, or ``pkg.Service/*``.

    Raises:
        ValueError: "wrong; fix".
    """
    match = _is_word(word)
    if match is None:
        raise ValueError("is no method of a service; write pkg.Service/Method, or pkg.Service/*")
    return f"{match[1]}:{match[2]}"


def is_word(word: str) -> bool:
    """True if a word of the settings names a method of a service, or all of one."""
    return _is_word(word) is not None


def label_of(operations: Operations[object], key: str) -> str:
    """Return an operation as records name it: by its path if the settings list it, or its service."""
    service = key.partition(":")[0]
    known = operations.label(key)
    if known != key and f"{service}:{ANY_NAME}" not in operations.keys:
        return OTHER
    return "/" + known.replace(":", "/")
