"""The traffic secrets of the handshake under way, as OpenSSL tells them: for ``Screen`` to read what it is sent.

``SSLContext.keylog_filename`` is the one public way to them. The file is in memory and has no name; nothing is left in
it after a step of a handshake.
"""

from __future__ import annotations

import os
import ssl
import weakref
from pathlib import Path
from typing import Final

_LONGEST: Final = 65536


class SecretsLog:
    """The key log of one context. A context makes its handshakes in one thread, so steps never mix."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._descriptor = os.memfd_create("handshake", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        context.keylog_filename = str(Path("/proc/self/fd") / str(self._descriptor))
        self.clear()

    def clear(self) -> None:
        """Forget what was told."""
        os.ftruncate(self._descriptor, 0)

    def take(self, *, of_client: bool) -> bytes | None:
        """The handshake traffic secret of one end, if exactly one was told since ``clear``; then forget it."""
        lines = os.pread(self._descriptor, _LONGEST, 0).split(b"\n")
        self.clear()
        label = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET " if of_client else b"SERVER_HANDSHAKE_TRAFFIC_SECRET "
        found = [line for line in lines if line.startswith(label)]
        if len(found) != 1:
            return None
        return bytes.fromhex(found[0].rpartition(b" ")[2].decode("ascii"))
