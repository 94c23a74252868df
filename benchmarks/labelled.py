"""Labelled record sets, made with a seed: many sidecars and token services, skewed clocks, unordered lines, and faults.

Each chain is lawful or has one fault, and its label is the set of findings that an audit must report for it. Lines lie
in one file per workload. ``write`` holds one block of chains in memory, so any number of records can be made.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from delegation_core.records.record import FIELDS

Members = dict[str, Any]
_EMPTY: Final[Members] = dict.fromkeys(FIELDS)
_START: Final = datetime(2026, 11, 24, 8, tzinfo=UTC)
_CHAINS_PER_BLOCK: Final = 5000
_SCOPES: Final = ("crm.read", "docs.read", "docs.write", "mail.send", "plan.make", "web.search")
AGENTS: Final = tuple(
    f"spiffe://{domain}/agent/a{number}" for domain in ("acme.example", "branch.example") for number in range(24)
)
SERVICES: Final = tuple(f"https://sts{number}.acme.example" for number in range(3))


@dataclass(slots=True)
class Call:
    """The four records of one hop."""

    issued: Members
    exchanged: Members
    caller: Members
    callee: Members

    def all(self) -> tuple[Members, ...]:
        """Return the records, the token service's first."""
        return self.issued, self.exchanged, self.caller, self.callee


@dataclass(slots=True)
class Story:
    """One chain: its calls, further records, and lost records, which are numbered but not written."""

    txn: str
    calls: list[Call]
    others: list[Members] = field(default_factory=list)
    lost: list[Members] = field(default_factory=list)
    again: list[tuple[Members, Members]] = field(default_factory=list)  # a record, and a line in its place

    def records(self) -> Iterator[Members]:
        """Yield every record that some witness wrote."""
        for call in self.calls:
            yield from call.all()
        yield from self.others


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311, reproducible
        self.skew = {name: self.random.uniform(-120, 120) for name in (*AGENTS, *SERVICES)}
        self.run = {name: f"{self.random.getrandbits(64):016x}" for name in (*AGENTS, *SERVICES)}
        self.routes = [self.random.sample(AGENTS, self.random.choice((2, 3, 3, 4, 5))) for _ in range(300)]
        self._number = 0

    def text(self, bits: int = 128) -> str:
        return f"{self.random.getrandbits(bits):0{bits // 4}x}"

    def ts(self, who: str, at: float) -> str:
        return (
            (_START + timedelta(seconds=at + self.skew[who])).isoformat(timespec="microseconds").replace("+00:00", "Z")
        )

    def lawful(self) -> Story:
        pick = self.random
        self._number += 1
        at = self._number * 0.02
        agents = pick.choice(self.routes)
        service, txn, trace = pick.choice(SERVICES), self.text(), self.text()
        subject = f"user{pick.randrange(20000)}@acme.example"
        scope = sorted(pick.sample(_SCOPES, 4))
        jti, call_in, calls = self.text(), None, []
        for depth in range(1, len(agents)):
            caller, callee = agents[depth - 1], agents[depth]
            scope = sorted(pick.sample(scope, max(1, len(scope) - (depth > 1))))
            token = {
                "subject": subject, "subject_iss": service, "actor": caller, "chain": agents[depth - 1 :: -1],
                "chain_depth": depth, "client_id": caller, "audience": callee, "scope": scope, "txn": txn,
                "fp": self.text(), "parent_jti": jti, "verified": True, "decision": "allow", "reason": "ok",
            }  # fmt: skip
            own, call_out = self.text(), self.text()
            calls.append(self._call(token, service, jti, own, call_in, call_out, trace, at + depth * 0.05))
            jti, call_in = own, call_out
        return Story(txn, calls)

    def _call(
        self,
        token: Members,
        service: str,
        jti: str,
        own: str,
        call_in: str | None,
        call_out: str,
        trace: str,
        at: float,
    ) -> Call:
        caller, callee = token["actor"], token["audience"]
        request_id, ms = self.text(), round(self.random.uniform(0.1, 40), 3)
        path = f"/items/{self.random.randrange(100000)}"
        links = {"jti_in": jti, "jti_out": own, "scope_needed": token["scope"], "route": callee[-3:]}
        exchange = {"event": "token.exchanged", **token, **links, "status": 200, "total_ms": ms}
        timing = {"decide_ms": ms / 10, "upstream_ms": ms, "total_ms": ms * 2, "bytes_in": 210, "bytes_out": 1733}
        request = {
            "event": "request", **token, "method": "GET", "status": 200, "upstream_status": 200, "trace_id": trace,
            "span_id": self.text(64), "after_request": False, **timing,
        }  # fmt: skip
        return Call(
            issued=self.record(service, at, {**exchange, "peer": caller, "source": "10.2.0.17"}),
            exchanged=self.record(caller, at, {**exchange, "direction": "outbound", "peer": None}),
            caller=self.record(
                caller, at,
                {**request, **links, "direction": "outbound", "peer": callee, "call_in": call_in, "call_out": call_out,
                 "path": f"/{callee[-3:]}{path}", "request_id": request_id, "exchange_ms": ms},
            ),
            callee=self.record(
                callee, at,
                {**request, "direction": "inbound", "peer": caller, "jti_in": own, "call_in": call_out, "path": path,
                 "route": "items", "scope_needed": token["scope"][:1], "request_id": self.text()},
            ),
        )  # fmt: skip

    def record(self, who: str, at: float, members: Members) -> Members:
        workload = who if who in AGENTS else f"spiffe://acme.example/{who[8:12]}"
        return {**_EMPTY, "ts": self.ts(who, at), "run": self.run[who], "workload": workload, **members}


Fault = Callable[[_Maker, Story], set[str]]


def _pick(maker: _Maker, story: Story, *, last: bool = True) -> int:
    return maker.random.randrange(len(story.calls) - (0 if last else 1))


def _lost(name: str) -> Fault:
    def lost(maker: _Maker, story: Story) -> set[str]:
        story.lost.append(getattr(story.calls[_pick(maker, story)], name))
        return {"missing_witness"}

    return lost


def _lost_hop(maker: _Maker, story: Story) -> set[str]:
    if len(story.calls) < 2:
        return set()
    story.lost += story.calls[_pick(maker, story, last=False)].all()
    return {"missing_hop"}


def _other_subject(maker: _Maker, story: Story) -> set[str]:
    if len(story.calls) < 2:
        return set()
    for call in story.calls[_pick(maker, story, last=False) + 1 :]:
        for one in call.all():
            one["subject"] = "mallory@acme.example"
    return {"splice"}


def _wider(_maker: _Maker, story: Story) -> set[str]:
    if len(story.calls) < 2:
        return set()
    call = story.calls[-1]
    for one in call.all():
        one["scope"] = [*one["scope"], "admin.all"]
        if one is not call.callee:
            one["scope_needed"] = one["scope"]
    return {"scope_widened"}


def _dropped_actor(_maker: _Maker, story: Story) -> set[str]:
    if len(story.calls) < 3:
        return set()
    for one in story.calls[-1].all():
        one["chain"] = [one["chain"][0], *one["chain"][2:]]
        one["chain_depth"] -= 1
    return {"chain_broken"}


def _altered(name: str, value: object, where: str) -> Fault:
    def altered(maker: _Maker, story: Story) -> set[str]:
        getattr(story.calls[_pick(maker, story)], where)[name] = value
        return {"witnesses_disagree"}

    return altered


def _let_in(maker: _Maker, story: Story) -> set[str]:
    call = story.calls[-1]
    call.callee["peer"] = _stranger(maker, story)
    return {"witnesses_disagree", "actor_not_peer"}


def _refused(_maker: _Maker, story: Story) -> set[str]:
    story.calls[-1].callee.update(decision="deny", reason="insufficient_scope", status=403, upstream_status=None)
    story.calls[-1].caller.update(status=403, upstream_status=403)
    return {"refused_hop"}


def _stolen(maker: _Maker, story: Story) -> set[str]:
    call = story.calls[_pick(maker, story)]
    theft = {"decision": "deny", "reason": "actor_mismatch", "status": 403, "upstream_status": None, "call_in": None}
    story.others.append({**call.callee, **theft, "peer": _stranger(maker, story), "request_id": maker.text()})
    return {"refused_hop", "impersonation", "token_at_two_peers"}


def _unfinished(_maker: _Maker, story: Story) -> set[str]:
    story.calls[-1].callee.update(event="request.opened", status=None)
    return {"unfinished"}


def _repeated(maker: _Maker, story: Story) -> set[str]:
    record = story.calls[_pick(maker, story)].callee
    story.again.append((record, record))
    return {"repeated_record"}


def _forged(maker: _Maker, story: Story) -> set[str]:
    record = story.calls[_pick(maker, story)].callee
    story.again.append((record, {**record, "subject": "mallory@acme.example"}))
    return {"forged_record"}


def _leaving(maker: _Maker, story: Story) -> set[str]:
    base, jti = story.calls[-1].caller, story.calls[-1].callee["jti_in"]
    refused = {"decision": "deny", "reason": "call_not_allowed", "status": 403, "upstream_status": None}
    beside = story.calls[-1].callee
    leaving = {**refused, "direction": "outbound", "jti_in": jti, "jti_out": None, "call_out": None, "peer": None}
    others = {"call_in": base["call_out"], "request_id": maker.text(), "route": "internet", "path": "/internet/x"}
    story.others.append({**beside, **leaving, **others})
    return {"refused_hop", "attempt_to_leave"}


def _replayed(maker: _Maker, story: Story) -> set[str]:
    story.others.append({**story.calls[-1].callee, "request_id": maker.text()})
    return {"repeated_call", "missing_witness"}


def _forked(maker: _Maker, story: Story) -> set[str]:
    """Add a second call with the same token, which is lawful."""
    call, both = story.calls[-1], maker.text()
    story.others.append({**call.caller, "call_out": both, "request_id": maker.text()})
    story.others.append({**call.callee, "call_in": both, "request_id": maker.text()})
    return set()


def _stranger(maker: _Maker, story: Story) -> str:
    known = {call.caller["workload"] for call in story.calls} | {call.callee["workload"] for call in story.calls}
    return next(name for name in maker.random.sample(AGENTS, len(known) + 1) if name not in known)


FAULTS: Final[tuple[Fault, ...]] = (
    _lost("caller"), _lost("callee"), _lost("issued"), _lost_hop, _other_subject, _wider, _dropped_actor,
    _altered("path", "/altered", "callee"), _altered("actor", AGENTS[0] + "x", "caller"),
    _altered("chain_depth", 9, "callee"), _altered("subject", "mallory@acme.example", "caller"),
    _altered("method", "DELETE", "caller"), _altered("audience", "spiffe://acme.example/x", "issued"),
    _let_in, _refused, _stolen, _unfinished, _repeated, _forged, _leaving, _replayed, _forked,
)  # fmt: skip


def write(folder: Path, records: int, *, seed: int, faulty: float = 0.02) -> dict[str, list[str]]:
    """Write about this many records; return the findings of each chain that has any.

    Every file is numbered in the order of writing and shuffled by the block, as a log shipper may deliver it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maker, numbers, labels, written = _Maker(seed), dict[str, int](), dict[str, list[str]](), 0
    for file in folder.glob("*.records"):
        file.unlink()
    while written < records:
        lines: dict[str, list[bytes]] = {}
        forged: dict[str, list[bytes]] = {}
        for _ in range(min(_CHAINS_PER_BLOCK, (records - written) // 9 + 1)):
            story = maker.lawful()
            if maker.random.random() < faulty:
                kinds = maker.random.choice(FAULTS)(maker, story)
                if kinds:
                    labels[story.txn] = sorted(kinds)
            lost = {id(one) for one in story.lost}
            for one in story.records():
                one["seq"] = numbers[one["run"]] = numbers.get(one["run"], 0) + 1
                if id(one) not in lost:
                    lines.setdefault(one["run"], []).append(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE))
                    written += 1
            for record, line in story.again:
                place = {**line, "seq": record["seq"]}
                forged.setdefault(record["run"], []).append(orjson.dumps(place, option=orjson.OPT_APPEND_NEWLINE))
        for run, of_run in lines.items():
            maker.random.shuffle(of_run)
            with (folder / f"{run}.records").open("ab") as lines_of_run:
                lines_of_run.writelines([*of_run, *forged.get(run, ())])
    return labels


def main() -> None:
    """Write a set and its labels."""
    parser = argparse.ArgumentParser(description="Write a labelled record set.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--faulty", type=float, default=0.02)
    arguments = parser.parse_args()
    labels = write(arguments.folder, arguments.records, seed=arguments.seed, faulty=arguments.faulty)
    (arguments.folder / "labels.json").write_text(json.dumps(labels, indent=1))


if __name__ == "__main__":
    main()
