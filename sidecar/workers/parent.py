"""``sidecar run --workers N``: starts the workers, replaces dead ones, answers probes for all, and ends with them.

The parent serves no request and holds no key, token or identity. It owns the probe listener, the admin socket and the
signals. It creates the workers' shared resources before it starts the workers.

A worker that dies unexpectedly is replaced, with the settings of the others: its requests are lost, the others go on.
If workers die too often, if one dies before it was ready, or if the settings files are invalid by then, the others
drain and the exit code is 1, so that a supervisor restarts the sidecar.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from collections import deque
from typing import Any, Final

from delegation_core.errors import ConfigError
from sidecar.background import Parts, run_until_stopped
from sidecar.config.loader import Loaded
from sidecar.config.settings import SidecarSettings
from sidecar.features import SESSION_KEY_BYTES
from sidecar.file_watch import FileWatcher
from sidecar.identity.acceptor import Acceptor
from sidecar.observe.metrics_merge import Families, counts_only, merged
from sidecar.observe.shared_sink import new_lock
from sidecar.proxy.journeys.remote_handles import Inbox, new_inbox
from sidecar.proxy.journeys.workload_handle import SECRET_BYTES
from sidecar.workers.channel import READY, UP, SilentError, Start, ToWorker
from sidecar.workers.shared_settings import Outcomes, SharedSettings

_log: Final = logging.getLogger("sidecar")

MAX_RESTARTS: Final = 5  # within RESTARTS_WITHIN_S, of all workers together
RESTARTS_WITHIN_S: Final = 60.0
END_S: Final = 15.0  # beyond the drain time, for a worker to write its last records and end
_ADDRESS_S: Final = 2.0  # wait for free addresses: the workers of a killed parent release theirs within a second


class Worker:
    """One worker process, from its start to its end. ``families`` are its last reported metrics."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, line: ToWorker) -> None:
        self.number = number
        self.process = process
        self.line = line
        self.families: Families = {}
        self.listening: asyncio.Future[None]

    @property
    def up(self) -> bool:
        """True once the worker's event loop runs."""
        return UP in self.line.heard

    @property
    def was_ready(self) -> bool:
        """True once the worker was ready."""
        return READY in self.line.heard


class Workers:
    """Runs ``count`` workers; the limit is the number of handle prefixes."""

    def __init__(self, loaded: Loaded[SidecarSettings], count: int) -> None:
        self._settings = SharedSettings(loaded, os.environ, self._lines)
        self._watcher = FileWatcher([self._settings.watched()], Outcomes(self._lines))
        self._inboxes: list[Inbox] = [new_inbox() for _ in range(count)]
        self._lock = new_lock()
        self._own_secret = secrets.token_bytes(SECRET_BYTES)
        self._session_key = secrets.token_bytes(SESSION_KEY_BYTES)
        self._restarted: deque[float] = deque(maxlen=MAX_RESTARTS)
        self.living: dict[int, Worker | None] = dict.fromkeys(range(count))
        self.retired: Families = {}
        self.restarts = 0
        self.stopping = False
        self._background = Parts()

    async def run(self, stop: asyncio.Event) -> bool:
        """Run all workers until ``stop``. Return True if every request ended in time and dead workers were replaced.

        Raises:
            OSError: a listener's address is in use or not local.
            PartEndedError: the settings watcher or a channel's reader ended by itself.
        """
        await self._require_addresses()
        one_is_gone = asyncio.Event()
        watching = self._background.start("settings", run_until_stopped(self._watcher.run(), stop))
        keeping = [asyncio.ensure_future(self._keep(number)) for number in self.living]
        for keeper in keeping:
            keeper.add_done_callback(lambda _: one_is_gone.set())
        try:
            await self._background.run_until(stop, one_is_gone)
        finally:
            self.stopping = True
            self._background.stop(watching)  # a starting worker must not wait for a reload
            _log.info("stopping the workers")
            for worker in self.living.values():
                if worker is not None:
                    worker.line.tell("stop")
            await asyncio.wait(keeping, timeout=self._settings.settings.drain_s + END_S)
            for worker in self.living.values():
                if worker is not None:
                    _log.error("a worker does not end and is killed", extra={"worker": worker.number})
                    worker.process.kill()
            await self._background.close()
        return all(await asyncio.gather(*keeping)) and self._background.error is None

    def reload(self) -> None:
        """Reload the settings, and have each worker reload its other watched files."""
        self._watcher.wake()
        self._tell("reload")

    def leave(self) -> None:
        """Have each worker close connections after their answers, so that callers reconnect to other replicas."""
        self._tell("leave")

    def _tell(self, order: str) -> None:
        for line in self._lines():
            if not self.stopping:
                line.tell(order)

    def _lines(self) -> list[ToWorker]:
        return [worker.line for worker in self.living.values() if worker is not None]

    async def ask(self, name: str, timeout_s: float) -> dict[int, Any]:
        """Ask all workers at once; return the answers by worker number, None for a worker without an answer in time."""

        async def answer(worker: Worker | None) -> Any:
            if worker is None or not worker.up:
                return None
            try:
                return await worker.line.ask(name, timeout_s)
            except SilentError:
                return None

        numbers = list(self.living)
        return dict(zip(numbers, await asyncio.gather(*map(answer, self.living.values())), strict=True))

    async def _require_addresses(self) -> None:
        """Check that all addresses are free. Workers bind them shared, and would not notice another listener.

        Raises:
            OSError: an address is in use or not local, or its port is 0.
        """
        settings = self._settings.settings
        deadline = time.monotonic() + _ADDRESS_S
        for side in (settings.inbound, settings.outbound):
            if side is None:
                continue
            if side.listen.port == 0:
                raise OSError(0, "several workers need a port that is given, not 0")
            while True:
                acceptor = Acceptor(side.listen.host, side.listen.port, lambda accepted, _address: accepted.close())
                try:
                    acceptor.open()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    acceptor.close()
                    break

    async def _keep(self, number: int) -> bool:
        """Run one worker, and replace it when it dies, until the stop. Return True if the last one ended cleanly."""
        successor = False
        while True:
            try:
                async with self._settings.steady(successor=successor) as loaded:
                    worker = await self._start(number, loaded)
            except ConfigError as error:
                _log.error("no worker is started in its place", extra={"why": f"settings: {error}"})
                return False
            code = await worker.process.wait()
            self.living[number] = None
            self._background.stop(worker.listening)
            self.retired = merged([self.retired, counts_only(worker.families)])
            if self.stopping:
                return code == 0
            _log.error("a worker has died", extra={"worker": number, "code": code})
            if not self._may_restart(worker):
                return False
            successor = True

    def _may_restart(self, worker: Worker) -> bool:
        """Return True, and count a restart, if a dead worker may be replaced."""
        now = time.monotonic()
        too_often = len(self._restarted) == MAX_RESTARTS and now - self._restarted[0] < RESTARTS_WITHIN_S
        if too_often or not worker.was_ready:
            _log.error("no worker is started in its place", extra={"why": "too often" if too_often else "never ready"})
            return False
        self._restarted.append(now)
        self.restarts += 1
        return True

    async def _start(self, number: int, loaded: Loaded[SidecarSettings]) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        inboxes = tuple((inbox.read.fileno(), inbox.write.fileno()) for inbox in self._inboxes)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "sidecar.workers.worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._lock, *(fd for pair in inboxes for fd in pair)),
                start_new_session=True,  # Ctrl-C is handled by the parent
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        line = ToWorker(writer)
        worker = self.living[number] = Worker(number, process, line)
        line.start(Start(number, loaded, inboxes, self._lock, self._own_secret, self._session_key))
        if self.stopping:
            line.tell("stop")
        worker.listening = self._background.start(f"line to worker {number}", line.listen(reader))
        return worker
