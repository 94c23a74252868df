"""Makes the credentials of the requests: tokens, logins, or handles obtained for logins."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Final

from benchmarks.peers.peer import Role
from benchmarks.rig import Rig
from benchmarks.scenarios import Scenario
from benchmarks.world import CALLER, STRANGER, TRUST_DOMAIN

REUSED: Final = 16
FRESH: Final = 40_000  # for one window; the sample reports a shortage


def credentials(rig: Rig, scenario: Scenario, role: Role, number: int) -> Path:
    """Write a file of credentials, one per line; for single use, a new one for each round ``number``."""
    path = (
        rig.world.folder
        / f"{scenario.name}-{role.port}-{role.credential}-{number if scenario.fresh_tokens else 0}.tokens"
    )
    if not path.exists():
        wanted = scenario.tokens or (FRESH if scenario.fresh_tokens else REUSED)
        if role.credential == "handle":
            for login in rig.world.logins(max(0, scenario.handles - wanted)):
                _handle(rig, role, login)  # live but unused
        path.touch(mode=0o600)
        path.write_text("\n".join(_made(rig, scenario, role, wanted)) + "\n")
    return path


def of_plan(rig: Rig, role: Role, count: int, *, life_s: int) -> Path:
    """Write ``count`` credentials that live ``life_s`` from now, one per line, for one window."""
    make = rig.world.logins if role.credential == "login" else rig.world.tokens
    return rig.world.token_file("plan.tokens", make(count, exp=int(time.time()) + life_s))


def _made(rig: Rig, scenario: Scenario, role: Role, count: int) -> list[str]:
    if role.credential == "handle":
        return [_handle(rig, role, login) for login in rig.world.logins(count)]
    if role.credential == "login":
        return rig.world.logins(count)
    if scenario.token == "stranger":
        return rig.world.tokens(count, act={"sub": STRANGER})
    tokens = rig.world.tokens(count, act=_chain(scenario.chain))
    return [_forged(token) for token in tokens] if scenario.token == "forged" else tokens


def _chain(actors: int) -> dict[str, object]:
    """Return the ``act`` of the caller with ``actors`` actors in all."""
    act: dict[str, object] = {}
    for number in range(1, actors):
        act = {"sub": f"spiffe://{TRUST_DOMAIN}/agent/before-{number}", **({"act": act} if act else {})}
    return {"sub": CALLER, **({"act": act} if act else {})}


def _forged(token: str) -> str:
    """Return the token with another signature, of the right length and alphabet."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{signature[::-1][:-1]}A"


def _handle(rig: Rig, role: Role, login: str) -> str:
    """Return the handle that a front app gets for its user's login at ``POST /.sidecar/subject``."""
    request = urllib.request.Request(
        f"http://{rig.world.at(role.port)}/.sidecar/subject",
        method="POST",
        headers={"Authorization": f"Bearer {login}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return str(json.load(answer)["handle"])
