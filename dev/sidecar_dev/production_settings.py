"""Settings for production, from those of a development run and the operations that were seen in it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import yaml

from sidecar_dev.mesh_settings import Settings

_STS: Final = "https://sts.acme.example"
_SOCKET: Final = "unix:///spiffe-workload-api/spire-agent.sock"
_MOST: Final = 20  # of one comment
_GRPC_CALL: Final = re.compile(r"POST /([A-Za-z0-9_.]+/[A-Za-z0-9_]+)")
_HEAD: Final = """\
# Settings of the sidecar of {name}, made of a run of `sidecar dev run`. Before they go into production:
# - replace acme.example by your trust domain, and the SPIFFE IDs by those of your workloads;
# - issuers and exchange: the token service there, with this workload and these scopes among its rules;
# - upstream: where the other sidecars listen; agent: where this one's program does;
# - then `sidecar check` this file.
"""

Seen = Mapping[tuple[str, str, str], Counter[str]]
"""By direction, route and decision: operations, or methods and paths, with their number."""


def seen_in(records: Path) -> Seen:
    """Count what a sidecar recorded."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for record in map(json.loads, records.read_text().splitlines() if records.exists() else ()):
        if record["event"] != "request" or record["route"] is None or record["decision"] is None:
            continue
        asked = record["op"] or f"{record['method']} {record['path']}"
        key = (record["direction"], record["route"], record["decision"])
        found.setdefault(key, Counter())[asked] += 1
    return found


def text_of(name: str, settings: Settings, seen: Seen, *, configured: Collection[str] = ()) -> str:
    """Write the settings of one sidecar for production, each route under comments on what was seen on it.

    A route allows what was allowed and asked for in the run, and is left out if that is nothing; on those that are
    ``configured`` (their names) the developer's list of operations stays.
    """
    made = _made(settings)
    kept: dict[str, list[Settings]] = {}
    by_grpc = made.get("protocols", {}).get("agent") == "h2c"
    for section in made.keys() & {"inbound", "outbound"}:
        narrowed = (
            _narrowed(
                route,
                seen.get((section, route["name"], "allow"), Counter()),
                configured,
                by_grpc=by_grpc and section == "inbound",
            )
            for route in made[section]["routes"]
        )
        kept[section] = [route for route in narrowed if route is not None]
    callable_names = {route["name"] for route in kept.get("outbound", ())}
    lines = [_HEAD.format(name=name).rstrip("\n")]
    for section, value in made.items():
        if section not in {"inbound", "outbound"}:
            lines.append(_yaml({section: value}))
            continue
        routes = value.pop("routes")
        lines.append(_yaml({section: value}, flow=False))
        lines.append("  routes:" if kept[section] else "  routes: []")
        names = {route["name"] for route in kept[section]}
        for left_out in (route["name"] for route in routes if route["name"] not in names):
            lines += [
                f"    # the route {left_out} is left out: nothing was allowed there in the run",
                *_refused(section, left_out, seen),
            ]
        for route in kept[section]:
            if "may_call" in route:
                route["may_call"] = [one for one in route["may_call"] if one in callable_names]
            lines += [*_allowed(section, route["name"], seen), *_refused(section, route["name"], seen)]
            lines.append(_indented(_yaml([route])))
    return "\n".join(lines) + "\n"


def _made(settings: Settings) -> Settings:
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


def _narrowed(route: Settings, allowed: Counter[str], configured: Collection[str], *, by_grpc: bool) -> Settings | None:
    """Return a route with what was seen alone; None, nothing was."""
    if route.get("protocol", "http") != "http":
        if route["name"] in configured:
            return route
        used = sorted(key for key in route["operations"][0]["allow"] if _was_seen(key, allowed))
        return {**route, "operations": [{"allow": used}]} if used else None
    if not allowed:
        return None
    if by_grpc:
        called = sorted({found[1] for asked in allowed if (found := _GRPC_CALL.fullmatch(asked))})
        operations = {"protocol": "grpc", "operations": [{"allow": called}]}
        return {**route, "match": {"path_prefix": "/"}, **operations} if called else None
    methods = route["match"].get("methods")
    if methods is None:
        return route
    used = [one for one in methods if any(asked.startswith(f"{one} ") for asked in allowed)]
    return {**route, "match": {**route["match"], "methods": used}}


def _was_seen(key: str, allowed: Counter[str]) -> bool:
    method, colon, name = key.partition(":")
    return key in allowed or (name == "*" and f"{method}{colon}other" in allowed)


def _allowed(section: str, route: str, seen: Seen) -> list[str]:
    return _comment("allowed", seen.get((section, route, "allow")))


def _refused(section: str, route: str, seen: Seen) -> list[str]:
    return _comment("refused", seen.get((section, route, "deny")))


def _comment(word: str, counted: Counter[str] | None) -> list[str]:
    if counted is None:
        return []
    told = [f"{_plain(asked)} ({number})" for asked, number in sorted(counted.items())]
    more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
    return [f"    # {word} in the run: {', '.join([*told[:_MOST], *more])}"]


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _yaml(value: object, *, flow: bool | None = None) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=110, default_flow_style=flow)
    return text.rstrip("\n")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
