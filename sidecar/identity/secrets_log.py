"""The traffic secrets of the handshake under way, as OpenSSL tells them: for ``Screen`` to read what it is sent.

``SSLContext.keylog_filename`` is the one public way to them. The file is in memory and has no name; after the step in
which the key is told nothing is left in it, and nothing more is written to it.
"""

from __future__ import annotations

import os
import ssl
import weakref
from pathlib import Path
from typing import Final

_LONGEST: Final = 65536


class SecretsLog:
    """The key log of one context, which makes its handshakes in one thread: what is told while it listens is of one.

    It listens for a step of a handshake only. OpenSSL tells the secrets of each KeyUpdate too, and a peer may send any
    number of them.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._descriptor = os.memfd_create("handshake", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._context = weakref.proxy(context)
        self._path = str(Path("/proc/self/fd") / str(self._descriptor))

    def listen(self) -> None:
        """Let OpenSSL tell."""
        self._context.keylog_filename = self._path

    def take(self, *, of_client: bool) -> bytes | None:
        """The handshake traffic secret of one end, if exactly one was told since ``listen``; listen no more."""
        self._context.keylog_filename = None
        lines = os.pread(self._descriptor, _LONGEST, 0).split(b"\n")
        os.ftruncate(self._descriptor, 0)
        label = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET " if of_client else b"SERVER_HANDSHAKE_TRAFFIC_SECRET "
        found = [line for line in lines if line.startswith(label)]
        if len(found) != 1:
            return None
        return bytes.fromhex(found[0].rpartition(b" ")[2].decode("ascii"))
