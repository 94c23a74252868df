"""A sidecar under load while everything changes: nothing may be lost, nothing may grow.

Requests in at a steady rate, each with a call out; event streams and WebSockets open all the while; SVIDs, authorities,
issuer keys and settings that change under them. One process (or several workers) of a real sidecar, real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.integration.hops import Hops, open_hops
from tests.integration.process import Running, process
from tests.integration.world import PATIENCE_S, bearer, mint
from tests.soak.agent import SoakAgent
from tests.soak.changes import Changes

CALLERS: Final = 16
CONNECTION_S: Final = 10.0
SAMPLE_S: Final = 2.0
SERVED_WITHIN_S: Final = 1.0
FDS_MORE: Final = 16
TASKS_MORE: Final = 16
MEMORY_MORE: Final = 0.1  # of the initial value, and 4 MiB
_SLACK_KIB: Final = 4096


@dataclass
class Report:
    """Results of a run; good if ``faults`` is empty."""

    seconds: float
    rate: int
    workers: int
    requests: int = 0
    calls_out: int = 0
    events: int = 0
    messages: int = 0
    failed: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    served_after_s: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the results for machines, with a selection of the failures."""
        return {**asdict(self), "failed": self.failed[:20], "failures": len(self.failed)}


class Soak:
    """One run against one sidecar."""

    def __init__(self, hops: Hops, agent: SoakAgent, sidecar: Running, changes: Changes, tls: ssl.SSLContext) -> None:
        self._hops = hops
        self._agent = agent
        self._sidecar = sidecar
        self._changes = changes
        self._tls = tls
        self._ending = asyncio.Event()
        self._samples: list[dict[str, float]] = []

    async def run(self, report: Report, *, streams: int, wanted: dict[str, int]) -> None:
        """Run load, streams and changes for the time; then a drain."""
        held = [asyncio.ensure_future(work(report)) for work in (self._events, self._chat) for _ in range(streams)]
        load = [asyncio.ensure_future(self._call(report, report.rate / CALLERS)) for _ in range(CALLERS)]
        watching = asyncio.ensure_future(self._watch())
        await self._changes.run(wanted, report.seconds)
        self._ending.set()
        await asyncio.gather(*load)
        watching.cancel()
        report.cut += [repr(one.exception() or "ended") for one in held if one.done()]
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        report.exit_code = await self._sidecar.end(signal.SIGTERM)
        self._sum_up(report, wanted)

    async def _call(self, report: Report, per_second: float) -> None:
        """Run one caller: this many requests a second, on a connection that is replaced now and then."""
        due = time.monotonic()
        while not self._ending.is_set():
            try:
                async with self._hops.world.kept(self._sidecar.port, self._tls) as kept:
                    until = time.monotonic() + CONNECTION_S
                    while not self._ending.is_set() and time.monotonic() < until:
                        kept.writer.write(_post(self._changes.token()))
                        answer = await kept.receive()
                        report.requests += 1
                        if answer.status != 200:
                            report.failed.append(f"{answer.status} {answer.reason}")
                        if answer.headers.get("connection") == "close":
                            break
                        due = max(due + 1 / per_second, time.monotonic() - 1.0)
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
            except (OSError, asyncio.IncompleteReadError) as error:
                report.failed.append(repr(error))

    async def _events(self, report: Report) -> None:
        """Read an event stream: every event in order, none missing. Ends only by being cut."""
        async with (
            self._session(report) as session,
            session.get(self._url("/events"), server_hostname="sidecar") as answer,
        ):
            expected = 0
            async for line in answer.content:
                if line.startswith(b"data: "):
                    if int(line[6:]) != expected:
                        raise RuntimeError("an event is missing")
                    expected += 1
                    report.events += 1

    async def _chat(self, report: Report) -> None:
        """Run a WebSocket with an echo. Ends only by being cut."""
        async with (
            self._session(report) as session,
            session.ws_connect(self._url("/chat"), server_hostname="sidecar") as socket,
        ):
            while True:
                await socket.send_str(str(report.messages))
                await socket.receive_str(timeout=PATIENCE_S)
                report.messages += 1
                await asyncio.sleep(0.25)

    def _session(self, report: Report) -> aiohttp.ClientSession:
        token = mint({"exp": int(time.time() + report.seconds) + 3600})  # a stream ends with its token
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE_S)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls), headers=bearer(token), timeout=timeout, trust_env=False
        )

    def _url(self, path: str) -> str:
        return f"https://127.0.0.1:{self._sidecar.port}{path}"

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            with contextlib.suppress(aiohttp.ClientError, OSError):
                self._samples.append(await self._sample())

    async def _sample(self) -> dict[str, float]:
        """Sample the resources: memory and descriptors of all processes, tasks of all loops."""
        connector = aiohttp.UnixConnector(str(self._sidecar.admin))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://admin/status") as answer:
            status = await answer.json()
        pids = [one["pid"] for one in status.get("workers", ())] or [status["pid"]]
        return {
            "rss_kib": sum(map(_rss_kib, pids)),
            "fds": sum(map(_fds, pids)),
            "tasks": status["tasks"],
            "handles": status["requests"]["handles"],
        }

    def _sum_up(self, report: Report, wanted: dict[str, int]) -> None:
        report.calls_out = self._agent.called
        report.failed += self._agent.failed
        report.changes = self._changes.made
        took = sorted(self._changes.served_after_s)
        if took:
            report.served_after_s = {"p50": round(statistics.median(took), 3), "max": round(took[-1], 3)}
        part = max(1, len(self._samples) // 5)
        report.first, report.last = (_median(some) for some in (self._samples[part : 2 * part], self._samples[-part:]))
        report.faults = [
            *(["requests failed"] if report.failed else []),
            *(["streams were cut"] if report.cut else []),
            *(f"{what} came late" for what in self._changes.late),
            *(["a new certificate came late"] if took and took[-1] > SERVED_WITHIN_S else []),
            *(["not all changes were made"] if report.changes != wanted else []),
            *(["the drain was not in time"] if report.exit_code != 0 else []),
            *_growth(report.first, report.last),
        ]


async def soak(
    folder: Path, *, seconds: float, rate: int, wanted: dict[str, int], streams: int, workers: int
) -> Report:
    """Run everything."""
    report = Report(seconds=seconds, rate=rate, workers=workers)
    async with open_hops(folder) as hops, SoakAgent() as agent:
        hops.world.agent.port = agent.port
        settings = hops.settings(
            route={"match": {"path_prefix": "/", "methods": ["GET", "POST"]}, "max_calls": 8},
            exchange={
                "timeout_s": PATIENCE_S
            },  # token service, next hop and callers share this one loop, and a machine
            limits={"connect_timeout_s": PATIENCE_S},
        )
        settings["issuers"][0] |= {"refresh_s": 2.0, "cooldown_s": 1.0}
        async with process(hops.world, settings, drain_s=10.0, starts=workers, workers=workers) as sidecar:
            agent.outbound = sidecar.outbound
            changes = Changes(hops, sidecar)
            await Soak(hops, agent, sidecar, changes, hops.planner).run(report, streams=streams, wanted=wanted)
    return report


def _post(token: str) -> bytes:
    lines = ["POST /draft HTTP/1.1", "host: sidecar", f"authorization: Bearer {token}", "content-length: 2", "", "hi"]
    return "\r\n".join(lines).encode()


def _rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def _fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _median(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in samples) for name in samples[0]} if samples else {}


def _growth(first: dict[str, float], last: dict[str, float]) -> list[str]:
    if not first or not last:
        return ["nothing was measured"]
    limits = {
        "rss_kib": first["rss_kib"] * (1 + MEMORY_MORE) + _SLACK_KIB,
        "fds": first["fds"] + FDS_MORE,
        "tasks": first["tasks"] + TASKS_MORE,
        "handles": first["handles"] + CALLERS,
    }
    return [f"{name} grew from {first[name]} to {last[name]}" for name, limit in limits.items() if last[name] > limit]
