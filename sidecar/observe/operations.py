"""The operations log: one line on standard error for each change of state.

Messages are constant; fields vary: ``2026-11-25T02:41:08Z WARNING not ready missing="…"``. Every value passes
``escape``, as in records, which masks tokens and prevents foreign text from starting a line.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from typing import IO, Any, Final

from delegation_core.records.record_text import escape
from sidecar.observe.background_handler import BackgroundHandler

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_PLAIN: Final = re.compile(r"[!#-~]+")  # printable, without quote and space
_SECRET: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*-----|\Z)"
    # as long and as mixed as a handle, a login's code or part of a token; no name of ours looks like this
    r"|(?<![A-Za-z0-9_-])(?=[A-Z0-9_-]*[a-z])(?=[a-z0-9_-]*[A-Z])(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{40,}"
)
INSTEAD: Final = "[secret]"
# uvloop raises it where TLS writes to a TCP transport whose earlier write failed: the peer reset the connection, and
# uvloop tells its protocol only in the next iteration. The request's record says ``peer_gone``; nothing else is lost.
_WRITE_AFTER_RESET: Final = "the handler is closed"
# uvloop's ``create_connection`` waits for TCP, then for TLS. If it is cancelled between the two, as by the
# timeout of a connection on a starved machine, the result of TLS is never read. The call has its own record.
_NOBODY_WAITS: Final = "Future exception was never retrieved"
_ENDS_A_CONNECTION: Final = "Fatal error"  # of uvloop and asyncio, where a callback of a transport raises

_log: Final = logging.getLogger("sidecar.loop")


class OneLine(logging.Formatter):
    """Formats a record as one line; a traceback follows indented, so that its lines cannot look like records."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        words = [at, record.levelname, harmless(record.getMessage())]
        words += [f"{name}={_render(value)}" for name, value in fields.items()]
        lines = [" ".join(words)]
        if record.exc_info:
            traceback = _SECRET.sub(INSTEAD, self.formatException(record.exc_info))
            lines += [f"    {harmless(line)}" for line in traceback.splitlines()]
        return "\n".join(lines)


def harmless(text: str) -> str:
    """Return the text on one line, with everything that looks like a token, a handle or a key masked."""
    return escape(_SECRET.sub(INSTEAD, text))


def log_operations(stream: IO[str]) -> None:
    """Send this process's log to ``stream``. A stalled reader never blocks the process."""
    handler = BackgroundHandler(stream.fileno())
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def report_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an unhandled error of the event loop (``asyncio.loop.set_exception_handler``).

    Errors that a peer or a lack of memory causes are one line. All others are bugs, and keep their traceback.
    """
    error, where = context.get("exception"), str(context.get("message"))
    if isinstance(error, RuntimeError) and _WRITE_AFTER_RESET in str(error):
        _log.info("a peer reset its connection during a write")
    elif isinstance(error, ConnectionError | ssl.SSLError) and where == _NOBODY_WAITS:
        _log.info("a handshake failed after its caller had given up", extra={"error": type(error).__name__})
    elif isinstance(error, MemoryError) and where.startswith(_ENDS_A_CONNECTION):
        _log.warning("out of memory: a connection is closed")
    else:
        _log.error("unexpected error in the event loop", exc_info=error, extra={"where": context.get("message")})


def _render(value: object) -> str:
    text = harmless("-" if value is None else str(value))
    return text if _PLAIN.fullmatch(text) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
