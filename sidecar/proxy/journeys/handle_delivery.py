"""Delivers the workload handle to the agent alone: by a Unix socket, by a file, or by both.

The socket answers a connection with one JSON line, ``{"handle", "expires_in"}``, and closes it. The kernel names the
connecting user (SO_PEERCRED); users other than the agent's are refused and recorded. The file has mode 0640: the agent
reads it through a group that the two containers share, and no other container mounts its volume. Each rotation replaces
the file atomically.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import orjson

from delegation_core.errors import Denied, Reason
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.proxy.journeys.workload_handle import WorkloadHandle
from sidecar.proxy.listening import unix_socket

_log: Final = logging.getLogger("sidecar")

SOCKET_MODE: Final = 0o666  # SO_PEERCRED names the user; a mode could only admit one group
FILE_MODE: Final = 0o640
_BACKLOG: Final = 16
_RETRY_S: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadHandleSettings:
    """Ways of delivery; None disables one. The socket answers ``agent_uids``; the handle changes every ``rotate_s``."""

    socket: Path | None
    file: Path | None
    agent_uids: frozenset[int]
    rotate_s: float


class HandleDelivery:
    """Delivers one workload's handle. Records of refused users are limited by ``rate``."""

    def __init__(
        self, handle: WorkloadHandle, settings: WorkloadHandleSettings, log: AccessLog, rate: RecordRate
    ) -> None:
        self._handle = handle
        self._settings = settings
        self._log = log
        self._unproven = UnprovenRecords(log, rate)

    async def run(self) -> None:
        """Serve the socket and rewrite the file at each rotation, until cancelled.

        Raises:
            OSError: the path of the socket is in use, or one of the paths is not writable.
        """
        settings = self._settings
        server, ours = None, None
        try:
            if settings.socket is not None:
                listening = unix_socket.bind(settings.socket, mode=SOCKET_MODE, what="the socket of workload_handle")
                ours = unix_socket.inode(settings.socket)
                loop = asyncio.get_running_loop()
                server = await loop.create_unix_server(lambda: _Answer(self), sock=listening, backlog=_BACKLOG)
            if settings.file is not None:
                await asyncio.to_thread(_replace, settings.file, self._handle.current.handle)
            while True:
                await self._rotate(settings.file)
        finally:
            if server is not None:
                server.close()
            if settings.socket is not None:
                unix_socket.remove(settings.socket, ours)
            if settings.file is not None:
                settings.file.unlink(missing_ok=True)

    async def _rotate(self, file: Path | None) -> None:
        await asyncio.sleep(self._handle.renews_in)
        while file is not None:
            try:
                await asyncio.to_thread(_replace, file, self._handle.current.handle)
            except OSError as error:
                _log.warning("the workload handle's file cannot be written", extra={"error": str(error)})
                await asyncio.sleep(_RETRY_S)
            else:
                break

    def answer_to(self, connection: socket.socket) -> bytes:
        """Return the line with the handle for a connected user.

        Raises:
            Denied: OWN_AUTHORITY_REFUSED, the user is not in ``agent_uids``.
        """
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in self._settings.agent_uids:
            error = Denied(Reason.OWN_AUTHORITY_REFUSED, f"uid {uid} is not in workload_handle.agent_uids")
            self._record(error, source=f"uid {uid} pid {pid}")
            raise error
        return orjson.dumps(self._handle.current._asdict()) + b"\n"

    def _record(self, error: Denied, *, source: str) -> None:
        if self._unproven.take():
            self._log.event(
                "connection.refused",
                decision="deny",
                reason=error.reason,
                direction="outbound",
                source=source,
                detail=error.detail,
                suppressed=self._unproven.suppressed(),
            )


class _Answer(asyncio.Protocol):
    """One connection, answered and closed at once, so that no client can hold it open."""

    def __init__(self, delivery: HandleDelivery) -> None:
        self._delivery = delivery

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast("asyncio.Transport", transport)
        try:
            writing.write(self._delivery.answer_to(transport.get_extra_info("socket")))
        except Denied as error:
            writing.write(orjson.dumps({"error": error.reason}) + b"\n")
        writing.close()


def _replace(file: Path, handle: str) -> None:
    """Replace the file atomically: write a temporary file beside it and rename it."""
    import tempfile  # loads shutil and the archive libraries: few sidecars deliver a handle

    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as written:
            os.fchmod(written.fileno(), FILE_MODE)
            written.write(handle.encode("ascii"))
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
