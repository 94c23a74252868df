"""gRPC on the wire: recognises its messages and reads the caller's deadline.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.message import Message, Request

_is_grpc: Final = re.compile(rb"application/grpc(?:[+;].*)?").fullmatch
_timeout: Final = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def is_grpc(message: Message) -> bool:
    """True if the content type of a message is that of gRPC."""
    return any(map(_is_grpc, message.all(b"content-type")))


def timeout_of(head: Request) -> float | None:
    """Return the caller's ``grpc-timeout`` in seconds; None if absent.

    Raises:
        Denied: HEADER_MALFORMED: the field is repeated or malformed.
    """
    value = head.one(b"grpc-timeout")
    if value is None:
        return None
    match = _timeout(value)
    if match is None:
        raise Denied(Reason.HEADER_MALFORMED, "the grpc-timeout is malformed")
    return int(match[1]) * _UNITS_S[match[2]]
