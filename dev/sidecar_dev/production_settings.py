"""Settings for production, made from a development run's settings and its recorded operations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from delegation_core.errors import Reason
from delegation_core.mcp import LIFECYCLE
from delegation_core.operation import ANY_NAME, OTHER, RouteProtocol
from delegation_core.route_checks import require_method, require_path
from sidecar.features.operations.settings import protocol_settings
from sidecar_dev.mesh_settings import Settings

_STS: Final = "https://sts.acme.example"
_SOCKET: Final = "unix:///spiffe-workload-api/spire-agent.sock"
_MOST: Final = 20  # of one comment
_MOST_PATHS: Final = 200  # routes made of one
_NAMED: Final = 3  # records of one kind of call
BY_CALLEE: Final = "refused by the callee"
_HEAD: Final = """\
# Settings of the sidecar of {name}, made of a run of `sidecar dev run`. Before they go into production:
# - replace acme.example by your trust domain, and the SPIFFE IDs by those of your workloads;
# - issuers and exchange: the token service there, with this workload and these scopes among its rules;
# - upstream: where the other sidecars listen; agent: where this one's program does;
# - read each route: it allows the calls that its comment names, by number, caller (from) or callee (to), the status
#   that was answered, and records of the run; a call that the callee's sidecar refused is not among those allowed;
#   `may_call` is of all calls of a route; a route of a protocol also has its lifecycle and an agent's card; an outbound
#   route of plain HTTP leaves paths to its next hop's routes;
# - then `sidecar check` this document, in a file of its own.
"""


class Call(NamedTuple):
    """A recorded call. ``op`` is the operation; None on a route of plain HTTP.

    ``peer`` is the caller of an inbound call, or the callee of an outbound call; None: unproven.
    """

    op: str | None
    method: str
    path: str
    peer: str | None

    @property
    def text(self) -> str:
        """The operation, or method and path."""
        return self.op or f"{self.method} {self.path}"


@dataclass(slots=True)
class Found:
    """Calls of one kind: their number, names of the first records, and the call ids that callee and caller share.

    ``outcomes`` counts them by the status that was answered, with the reason where there is one.
    """

    count: int = 0
    records: list[str] = field(default_factory=list)
    call_ids: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)


Calls = Mapping[Call, Found]
Seen = Mapping[tuple[str, str, str], Calls]
"""Calls by direction, route and decision: of the sidecar that recorded them, or ``BY_CALLEE``."""


def refusals_in(files: Iterable[Path]) -> dict[str, str]:
    """Return the reasons of calls that callees' sidecars refused, by call id."""
    last = {
        record["call_in"]: record
        for file in files
        for record in _requests(file)
        if record["direction"] == "inbound" and record["call_in"]
    }
    return {call: str(record["reason"]) for call, record in last.items() if record["decision"] == "deny"}


def seen_in(records: Path, refused: Mapping[str, str]) -> Seen:
    """Count what a sidecar recorded. ``refused`` has the reasons of calls that their callees refused, by call id."""
    found: dict[tuple[str, str, str], dict[Call, Found]] = {}
    for record in _requests(records):
        if record["route"] is None or record["decision"] is None:
            continue
        decision, reason = record["decision"], record["reason"]
        if record["direction"] == "outbound" and decision == "allow":
            by_callee = refused.get(record["call_out"] or "")
            if by_callee is not None or reason == Reason.NEXT_HOP_REFUSED:
                decision, reason = BY_CALLEE, by_callee or reason
        call = Call(record["op"], record["method"], record["path"], record["peer"])
        one = found.setdefault((record["direction"], record["route"], decision), {}).setdefault(call, Found())
        one.count += 1
        one.outcomes[" ".join(str(part) for part in (record["status"] or "no answer", reason) if part)] += 1
        if len(one.records) < _NAMED:
            one.records.append(f"{record['run']}/{record['seq']}")
        if record["call_in"]:
            one.call_ids.add(record["call_in"])
    return found


def _requests(file: Path) -> Iterator[dict[str, Any]]:
    for record in map(json.loads, file.read_text().splitlines() if file.exists() else ()):
        if record["event"] == "request":
            yield record


def text_of(name: str, settings: Settings, seen: Seen) -> str:
    """Return the settings of one sidecar for production, each route below comments with the calls behind it.

    An inbound route allows the calls that were allowed in the run, each by its own proven callers, and the outbound
    routes that those calls used. An outbound route lists the operations that were called. A route without an allowed
    call is left out.
    """
    made = _make(settings)
    by_grpc = made.get("protocols", {}).get("agent") == "h2c"
    outbound = made.get("outbound", {}).get("routes", ())
    used = {one["name"]: _ids(seen.get(("outbound", one["name"], "allow"), {})) for one in outbound}
    lines = [_HEAD.format(name=name).rstrip("\n")]
    for section, value in made.items():
        if section not in {"inbound", "outbound"}:
            lines.append(_yaml({section: value}))
            continue
        routes = value.pop("routes")
        taken = {route["name"] for route in routes}
        text: list[str] = []
        opened = False
        for route in routes:
            allowed = seen.get((section, route["name"], "allow"), {})
            if section == "inbound":
                narrowed, left_out = inbound_routes(route, allowed, used, by_grpc=by_grpc, taken=taken)
            else:
                narrowed, left_out = _outbound_route(route, allowed)
            if not narrowed:
                text.append(f"# the route {route['name']} is left out: nothing was allowed there in the run")
            for one, calls in narrowed:
                opened = True
                text += [*_comment("allowed", section, calls), _yaml([one])]
            text += _comment("allowed, and not in these settings", section, left_out)
            for word, decision in (("refused by the callee's sidecar", BY_CALLEE), ("refused by this sidecar", "deny")):
                text += _comment(word, section, seen.get((section, route["name"], decision), {}))
        lines += [_yaml({section: value}, flow=False), "  routes:" if opened else "  routes: []"]
        lines += map(_indent, text)
    return "\n".join(lines) + "\n"


def _make(settings: Settings) -> Settings:
    made: Settings = json.loads(json.dumps(settings))
    made["identity"] = {"workload_api": _SOCKET}
    made["issuers"] = made["issuers"][:1]  # the login issuer is there for a development run, which refuses its tokens
    for route in made["inbound"]["routes"]:
        route.pop("issuers", None)
    made["issuers"][0] |= {"issuer": _STS, "jwks": f"{_STS}/jwks"}
    if made.get("outbound", {}).get("routes"):
        made["exchange"]["issuer"] = _STS
    else:  # it calls nobody
        made.pop("exchange")
    made["records"] = {"sink": "stdout"}
    made["probe"] = {"listen": "0.0.0.0:7090"}
    made.pop("drain_s", None)
    made["inbound"]["listen"] = "0.0.0.0:7443"
    if "outbound" in made:
        made["outbound"]["listen"] = "127.0.0.1:7080"
        for route in made["outbound"]["routes"]:
            route["upstream"] = f"https://{route['name']}.acme.example:7443"
    return made


Narrowed = tuple[list[tuple[Settings, Calls]], Calls]
"""Routes, each with the calls behind it, and the calls that settings cannot list one by one."""


def inbound_routes(
    route: Settings, allowed: Calls, used: Mapping[str, Collection[str]], *, by_grpc: bool, taken: set[str]
) -> Narrowed:
    """Return routes that allow exactly these calls, each to its own callers.

    ``used`` has the call ids of the requests that each outbound route was called in; names of new routes join
    ``taken``.
    """
    proven = {call: found for call, found in allowed.items() if call.peer}
    protocol: RouteProtocol = "grpc" if by_grpc else route.get("protocol", "http")
    groups: dict[tuple[object, ...], dict[Call, Found]] = {}
    if protocol != "http":
        groups[()] = {call: found for call, found in proven.items() if _word(protocol, call) is not None}
    else:
        peers: dict[tuple[str, str], set[str | None]] = {}
        for call in proven:
            peers.setdefault((call.path, call.method), set()).add(call.peer)
        for call, found in sorted(proven.items(), key=lambda item: item[0].path):
            key = (call.path, frozenset(peers[call.path, call.method]))
            if _can_list(call) and (key in groups or len(groups) < _MOST_PATHS):
                groups.setdefault(key, {})[call] = found
    narrowed: list[tuple[Settings, Calls]] = []
    for calls in filter(None, groups.values()):
        one = {**route, "name": _name(route["name"], taken) if narrowed else route["name"]}
        one["peers"] = sorted({call.peer for call in calls if call.peer})
        if "may_call" in one:
            one["may_call"] = [name for name in one["may_call"] if _ids(calls) & set(used.get(name, ()))]
        if protocol == "http":
            one["match"] = {"path": next(iter(calls)).path, "methods": sorted({call.method for call in calls})}
        else:
            one |= {"protocol": protocol, "match": _match(route, calls), "operations": _operations(protocol, calls)}
        narrowed.append((one, calls))
    listed = {call for _, calls in narrowed for call in calls}
    return narrowed, {call: found for call, found in allowed.items() if call not in listed}


def _outbound_route(route: Settings, allowed: Calls) -> Narrowed:
    """Return a route with the operations that were used. For plain HTTP the next hop decides about paths."""
    protocol = route.get("protocol", "http")
    if protocol == "http":
        return ([(route, allowed)] if allowed else []), {}
    listed = {call: found for call, found in allowed.items() if _word(protocol, call) is not None}
    words = sorted({word for call in listed if (word := _word(protocol, call))})
    rest = {call: found for call, found in allowed.items() if call not in listed}
    return ([({**route, "operations": [{"allow": words}]}, listed)] if words else []), rest


def _word(protocol: RouteProtocol, call: Call) -> str | None:
    """Return the settings' word for a call's operation; None if settings cannot list that operation alone."""
    path = call.path.removeprefix("/") if call.method == "POST" else ""
    op = path if protocol == "grpc" else call.op or ""
    if op == OTHER or op.endswith((f":{OTHER}", f":{ANY_NAME}", f"/{ANY_NAME}")):
        return None  # the record lacks its name, or the word would allow all
    if op in LIFECYCLE:
        return None  # part of every route
    try:
        protocol_settings(protocol).key_of(op)
    except ValueError:  # an agent's card, which is part of every route of the protocol; or none at all
        return None
    return op


def _operations(protocol: RouteProtocol, calls: Calls) -> list[Settings]:
    """Return the operations of a route, those of the same callers together."""
    peers: dict[str, set[str]] = {}
    for call in calls:
        peers.setdefault(_word(protocol, call) or "", set()).add(call.peer or "")
    words: dict[tuple[str, ...], list[str]] = {}
    for word, callers in sorted(peers.items()):
        words.setdefault(tuple(sorted(callers)), []).append(word)
    if len(words) == 1:
        return [{"allow": allow} for allow in words.values()]
    return [{"allow": allow, "peers": list(callers)} for callers, allow in words.items()]


def _match(route: Settings, calls: Calls) -> Settings:
    match: Settings = route["match"]
    prefix = match.get("path_prefix", "/")
    exact = prefix != "/" and all(call.path == prefix for call in calls)
    return {"path": prefix} if exact else {one: value for one, value in match.items() if one != "methods"}


def _can_list(call: Call) -> bool:
    """Return True if a settings file can list the call's path. A truncated or masked path is not canonical."""
    try:
        require_path(call.path, prefix=False)
        require_method(call.method)
    except ValueError:
        return False
    return True


def _name(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    taken.add(f"{name}-{number}")
    return f"{name}-{number}"


def _ids(calls: Calls) -> set[str]:
    return set().union(*(found.call_ids for found in calls.values()))


def _comment(word: str, section: str, calls: Calls) -> list[str]:
    told = [
        f"{_plain(call.text)} ({found.count}{_other_side(section, call)}{_outcomes(found)},"
        f" as {_plain(', '.join(found.records))})"
        for call, found in sorted(calls.items(), key=lambda item: (item[0].text, item[0].peer or ""))
    ]
    more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
    return [f"# {word} in the run: {', '.join([*told[:_MOST], *more])}"] if told else []


def _other_side(section: str, call: Call) -> str:
    side = "from" if section == "inbound" else "to"
    return f" {side} {_plain(call.peer.rpartition('/')[2])}" if call.peer else ""


def _outcomes(found: Found) -> str:
    counted = [f"{number} x {_plain(outcome)}" for outcome, number in sorted(found.outcomes.items())]
    return f": {', '.join(counted)}" if counted else ""


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _yaml(value: object, *, flow: bool | None = None) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=110, default_flow_style=flow)
    return text.rstrip("\n")


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
