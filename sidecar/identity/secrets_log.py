"""The traffic secrets of the handshake in progress, as OpenSSL logs them, so that ``Screen`` can decrypt it.

``SSLContext.keylog_filename`` is the only public API for them. The file is in memory and has no name; after the step
that logs the key it is emptied, and nothing more is written to it.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from typing import Final

from sidecar.identity.memory_file import new_memory_file, path_of

_LONGEST: Final = 8192  # five secrets have 1 KB
_OF_CLIENT: Final = b"\nCLIENT_HANDSHAKE_TRAFFIC_SECRET "
_OF_SERVER: Final = b"\nSERVER_HANDSHAKE_TRAFFIC_SECRET "


class _File:
    """An in-memory file of one thread of one process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.descriptor = new_memory_file("handshake")
        self.path = path_of(self.descriptor)
        weakref.finalize(self, os.close, self.descriptor)


class _Local(threading.local):
    file: _File | None = None


_local: Final = _Local()


def file_of_thread() -> _File:
    """Return this thread's file; a thread runs one handshake step at a time."""
    if _local.file is None or _local.file.process != os.getpid():  # a child must not write to its parent's
        _local.file = _File()
    return _local.file


class SecretsLog:
    """The key log of one context.

    It is open for one step of a handshake only: OpenSSL also logs the secrets of each KeyUpdate, and a peer may send
    any number of them.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = weakref.proxy(context)

    def listen(self) -> None:
        """Start logging."""
        self._context.keylog_filename = file_of_thread().path

    def take(self, *, of_client: bool) -> bytes | None:
        """Stop logging; return the handshake traffic secret of one end, if exactly one was logged since ``listen``."""
        self._context.keylog_filename = None
        descriptor = file_of_thread().descriptor
        logged = b"\n" + os.pread(descriptor, _LONGEST, 0)
        os.ftruncate(descriptor, 0)
        label = _OF_CLIENT if of_client else _OF_SERVER
        at = logged.find(label)
        if at < 0 or logged.count(label) != 1:
            return None
        return bytes.fromhex(logged[at + len(label) : logged.find(b"\n", at + 1)].rpartition(b" ")[2].decode("ascii"))
