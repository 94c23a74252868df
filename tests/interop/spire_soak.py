"""Requests at a steady rate over three hops while SPIRE renews every SVID: ``python -m tests.interop.spire_soak``.

Exit code 0 if every request was answered with 200 for the right user, and enough SVIDs and authorities were renewed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.interop.spire import Spire
from tests.interop.spire_mesh import SIDECARS, SpireMesh, lacking, open_spire_mesh

CALLERS: Final = 32
LOGIN_S: Final = 10.0  # each caller logs in again after this time, so that exchanges go on
_PATIENCE_S: Final = 120.0


@dataclass
class Report:
    """Results of a run; good if ``faults`` is empty."""

    rate: int
    seconds: float = 0.0
    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    rotations: dict[str, int] = field(default_factory=dict)
    authorities: list[str] = field(default_factory=list)
    exchanges: int = 0
    latency_ms: dict[str, float] = field(default_factory=dict)
    entry_to_served_s: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        made = {
            "rotations_together": sum(self.rotations.values()),
            "requests_a_second": round(self.requests / self.seconds),
        }
        return {**vars(self), "failed": dict(self.failed), **made}


class Load:
    """Callers that ask as alice at a rate; each request's answer is counted."""

    def __init__(self, mesh: SpireMesh, report: Report) -> None:
        self._mesh = mesh
        self._report = report
        self._ending = asyncio.Event()
        self._took: list[float] = []

    async def under_load(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the callers until the work is done."""
        before, began = self._mesh.rotations(), time.monotonic()
        exchanged = len(self._mesh.records("sts", "token.exchanged"))
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
            callers = [group.create_task(self._call(session, number)) for number in range(CALLERS)]
            try:
                await work()
            finally:
                self._ending.set()
            await asyncio.gather(*callers)
        report = self._report
        report.seconds = round(time.monotonic() - began, 1)
        report.rotations = {name: count - before[name] for name, count in self._mesh.rotations().items()}
        report.exchanges = len(self._mesh.records("sts", "token.exchanged")) - exchanged
        took = sorted(self._took)
        ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        report.latency_ms = {
            name: round(took[min(int(len(took) * rank), len(took) - 1)] * 1e3, 1) for name, rank in ranks.items()
        }

    async def _call(self, session: aiohttp.ClientSession, number: int) -> None:
        every = CALLERS / self._report.rate
        due = time.monotonic() + every * number / CALLERS
        token, until = self._mesh.log_in(), due + LOGIN_S
        while not self._ending.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() > until:
                token, until = self._mesh.log_in(), time.monotonic() + LOGIN_S
            began = time.monotonic()
            try:
                answer = await self._mesh.ask(session, token)
            except (aiohttp.ClientError, OSError) as error:
                answer = (0, repr(error))
            self._took.append(time.monotonic() - began)
            self._report.requests += 1
            if answer != (200, "alice"):
                self._report.failed[f"{answer[0]} {answer[1]}"] += 1
            due += every


async def wait_for_rotations(mesh: SpireMesh, count: int) -> None:
    """Wait for this many more rotations, of all sidecars together, and for some of each."""
    before = mesh.rotations()
    async with asyncio.timeout(count * 5 + 30):
        while True:
            more = [now - before[name] for name, now in mesh.rotations().items()]
            if sum(more) >= count and min(more) >= min(count // 8, 2):
                return
            await asyncio.sleep(0.2)


async def change_authority(mesh: SpireMesh, spire: Spire, partner: Spire, *, by_hand: bool = False) -> None:
    """Give a server another X.509 authority without haste, as docs/spire.md says: it signs all SVIDs before the old one
    is tainted. The partner reads the new bundle, or gets it by hand.
    """
    old = (await spire.authority("x509", "show"))["active"]["authority_id"]
    fresh = (await spire.authority("x509", "prepare"))["prepared_authority"]["authority_id"]
    if by_hand:
        await partner.trust(spire)
    await _known_to(partner, spire, 2)
    await asyncio.sleep(2)  # from the partner's server to its sidecars
    await spire.authority("x509", "activate", "-authorityID", fresh)
    await _renewed(mesh, [name for name in SIDECARS if mesh.at[name] is spire])
    await spire.authority("x509", "taint", "-authorityID", old)
    await spire.authority("x509", "revoke", "-authorityID", old)
    if by_hand:
        await partner.trust(spire)
    await _known_to(partner, spire, 1)


async def _renewed(mesh: SpireMesh, names: Sequence[str]) -> None:
    """Wait for the second renewal of each: the first one may have been under way with the old authority."""
    before = {name: len(mesh.not_afters(name)) for name in names}
    async with asyncio.timeout(_PATIENCE_S):
        while any(len(mesh.not_afters(name)) < count + 2 for name, count in before.items()):  # noqa: ASYNC110 - a log
            await asyncio.sleep(0.2)


async def _known_to(partner: Spire, spire: Spire, roots: int) -> None:
    """Wait until the partner's server has read this many authorities from the federation endpoint."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            shown = await partner.server("bundle", "list", "-format", "spiffe", "-id", f"spiffe://{spire.domain}")
            if sum(key["use"] == "x509-svid" for key in json.loads(shown)["keys"]) == roots:
                return
            await asyncio.sleep(0.5)


async def entry_to_served(mesh: SpireMesh, times: int) -> list[float]:
    """Measure the seconds from the start of `entry create` for the writer to the first answer over three hops."""
    took = []
    for _ in range(times):
        await mesh.withdraw("writer")
        await mesh.until_says("writer", "denied")
        began = time.monotonic()
        await mesh.register("writer")
        await mesh.until_served()
        took.append(time.monotonic() - began)
    return took


async def soak(rate: int, rotations: int, entries: int, *, authorities: bool) -> Report:
    report = Report(rate=rate)
    async with open_spire_mesh() as mesh:

        async def work() -> None:
            began = mesh.rotations()
            if authorities:
                for spire, partner in ((mesh.acme, mesh.partner), (mesh.partner, mesh.acme)):
                    await change_authority(mesh, spire, partner)
                    report.authorities.append(spire.domain)
            done = sum(now - began[name] for name, now in mesh.rotations().items())
            await wait_for_rotations(mesh, max(rotations - done, 1))

        await Load(mesh, report).under_load(work)
        took = await entry_to_served(mesh, entries)
        if took:
            report.entry_to_served_s = {"p50": round(statistics.median(took), 2), "max": round(max(took), 2)}
    report.faults = [
        *(["requests failed"] if report.failed else []),
        *(["too few requests: this machine is too busy"] if report.requests < 0.9 * rate * report.seconds else []),
        *(["too few rotations"] if sum(report.rotations.values()) < rotations else []),
    ]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="spire_soak")
    parser.add_argument("--rate", type=int, default=200, help="requests a second, each over three hops")
    parser.add_argument("--rotations", type=int, default=200, help="of all sidecars together")
    parser.add_argument("--entries", type=int, default=20, help="times that an entry is deleted and created again")
    arguments = parser.parse_args()
    if why := lacking():
        sys.stderr.write(f"spire_soak: {why}\n")
        return 2
    report = asyncio.run(soak(arguments.rate, arguments.rotations, arguments.entries, authorities=True))
    sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
