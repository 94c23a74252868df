"""``python -m benchmarks.handshakes``: the CPU of a new connection beside HAProxy's, and its causes one by one.

The key, the chain, the number of callers and the number of concurrent connections all affect the result. Each case
changes one of them, in rounds with all cases and both proxies.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.machine import described
from benchmarks.measure import MeasureError, measure
from benchmarks.native import BuildError
from benchmarks.peers import binaries, haproxy, sidecar
from benchmarks.peers.peer import INBOUND, Part, Peer, Role
from benchmarks.ratios import ratios, refusal, spread
from benchmarks.rig import Rig, rig
from benchmarks.sample import Sample
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.world import AGENT, CALLER, World, write_chained_identity, write_identity
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.processes import ProcessError

_BASE: Final = next(one for one in SCENARIOS if one.name == "new-connection")
_NEVER_SEEN: Final = 6000  # certificates: more than the connections in a window


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A scenario with one fact changed. ``identities`` names the keys and chains of both ends."""

    name: str
    title: str
    scenario: Scenario = _BASE
    identities: str = "p256"


def _case(name: str, title: str, identities: str = "p256", **changes: object) -> Case:
    scenario = replace(_BASE, name=name, title=title, **changes)  # type: ignore[arg-type]
    return Case(name=name, title=title, scenario=scenario, identities=identities)


CASES: Final = (
    _case("as-in-the-report", "P-256, a leaf alone, one caller, 32 at once"),
    _case("eight", "8 at once", connections=8),
    _case("two", "2 at once", connections=2),
    _case("one", "1 at a time", connections=1),
    _case("never-seen", "each connection with a caller's certificate that was never seen", leaves=_NEVER_SEEN),
    _case("chain", "leaf and intermediate, on both sides", "chain"),
    _case("rsa", "RSA-2048 keys, on both sides", "rsa"),
    _case("resumption", "HAProxy resumes sessions; the sidecar never does", "tickets", resumes=True),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table. Exit codes: 0 measured, 1 the measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handshakes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each window (default %(default)s)")
    parser.add_argument("--only", action="append", metavar="CASE", help="this one; may be given again")
    parser.add_argument("--binary", action="append", default=[], metavar="NAME=PATH", help="where a program is")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write handshakes.json and handshakes.md there")
    arguments = parser.parse_args(argv)
    binaries.given.update(dict(text.split("=", 1) for text in arguments.binary))
    cases = [case for case in CASES if not arguments.only or case.name in arguments.only]
    try:
        with rig((), frozenset()) as running:
            samples = _measured(running, cases, arguments.rounds, arguments.seconds)
    except (BuildError, ProcessError, MeasureError) as error:
        print(f"handshakes: {error}", file=sys.stderr)
        return 1
    machine = described()
    page = told(cases, samples, {**machine, "rounds": f"{arguments.rounds}, of {arguments.seconds:g} s each"})
    print(page)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "handshakes.md").write_text(page)
        data = {"machine": machine, "samples": [asdict(one) for one in samples]}
        (arguments.out / "handshakes.json").write_text(json.dumps(data))
    return 0


def _measured(running: Rig, cases: Sequence[Case], rounds: int, seconds: float) -> list[Sample]:
    rigs = {kind: replace(running, world=_world(running, kind)) for kind in {case.identities for case in cases}}
    peers = {kind: list(_peers(one, kind)) for kind, one in rigs.items()}
    samples = []
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            order = peers[case.identities] if number % 2 == 0 else reversed(peers[case.identities])
            for peer in order:
                one = measure(rigs[case.identities], peer, case.scenario, seconds=seconds, number=number)
                one = replace(one, peer=peer.title)
                samples.append(one)
                print(f"round {number + 1}  {case.name:18} {peer.title:36} {one.told}", flush=True)
    return samples


def _world(running: Rig, kind: str) -> World:
    """Return the world with other keys or chains for the caller and the agent, in a folder of their own."""
    world = running.world
    if kind in {"p256", "tickets"}:
        return world
    folder = world.folder / kind
    folder.mkdir()
    authority = world.authority
    if kind == "rsa":
        authority = TrustDomainAuthority(authority.trust_domain, key_type="rsa-2048")
    written = write_chained_identity if kind == "chain" else write_identity
    bundle = folder / "bundle.pem"
    bundle.write_bytes(authority.bundle_pem())
    identities = {name: written(authority, name, folder) for name in (AGENT, CALLER)}
    return replace(world, folder=folder, authority=authority, bundle=bundle, identities=identities)


def _peers(running: Rig, kind: str) -> Iterator[Peer]:
    """Start HAProxy and each sidecar with these identities. HAProxy is the first."""
    launchers: list[tuple[Peer, Callable[[World, str], Part]]] = [
        (haproxy.plain(), haproxy.pod_with_tickets if kind == "tickets" else haproxy.pod),
        (sidecar.sidecar(), sidecar.pod),
        (sidecar.native(), sidecar.native_pod),
        (sidecar.earlier(), sidecar.earlier_pod),
    ]
    for peer, launch in launchers:
        if peer.missing() is None:
            name = f"{peer.name}-{kind}"
            running.start([launch(running.world, name)])
            yield replace(peer, roles={INBOUND: Role(port=f"{name}-inbound", counted=(name,))})


def told(cases: Sequence[Case], samples: Sequence[Sample], facts: dict[str, str]) -> str:
    """Return the page: for each case HAProxy's microseconds, and each sidecar's, with their ratio and difference."""
    lines = ["# A new connection, one fact changed at a time", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "Microseconds of CPU for each connection with one request: the median of the rounds. Ratio and"]
    lines += ["difference are of the same round, with the lowest and the highest.", ""]
    heading = ("each connection", "sidecar", "HAProxy, us", "sidecar, us", "ratio", "more, us", "resumed, HAProxy")
    lines += [f"| {' | '.join(heading)} |", "| --- " * len(heading) + "|"]
    base_title = haproxy.plain().title
    for case in cases:
        own = [sample for sample in samples if sample.scenario == case.name]
        rounds = sorted({sample.round for sample in own})
        columns = {title: _column(own, title, rounds) for title in dict.fromkeys(sample.peer for sample in own)}
        base = columns.pop(base_title, [None] * len(rounds))
        resumed = sum(sample.seen.get("resumed", 0) for sample in own if sample.peer == base_title)
        connects = sum(sample.seen.get("connects", 0) for sample in own if sample.peer == base_title)
        for title, column in columns.items():
            why = refusal(base)
            ratio = "none: " + why if why is not None else _spread(ratios(column, base), "{:.2f}")
            pairs = [(one, other) for one, other in zip(column, base, strict=True) if one and other]
            more = _spread([one - other for one, other in pairs], "{:,.0f}")
            share = f"{resumed / connects:.0%}" if connects else ""
            row = (case.title, title, _middle(base), _middle(column), ratio, more, share)
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _column(samples: Sequence[Sample], title: str, rounds: Sequence[int]) -> list[float | None]:
    found = {sample.round: sample.cpu_us for sample in samples if sample.peer == title}
    return [found.get(number) for number in rounds]


def _middle(values: Sequence[float | None]) -> str:
    found = spread([value for value in values if value is not None])
    return "-" if found is None else f"{found.middle:,.0f}"


def _spread(values: Sequence[float], form: str) -> str:
    found = spread(values)
    if found is None:
        return "-"
    return f"{form.format(found.middle)} ({form.format(found.lowest)} to {form.format(found.highest)})"


if __name__ == "__main__":
    sys.exit(main())
