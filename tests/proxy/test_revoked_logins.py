"""A login whose user is revoked by any of its names, after it was used: the caches forget it, and no call leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.revocation import InForce, Kind
from delegation_core.revocations_kept import Revocation, Revocations
from sidecar.proxy.journeys.caches import Caches
from sidecar.proxy.journeys.snapshot import Setup, Snapshots
from tests.core.test_outside import HOOK, KEY, MODEL, OPEN
from tests.core.world import ENTRY, IDP, LOGIN_CLAIMS, NOW, POLICY, STS, TO_CRM, signed
from tests.proxy.agent_calls import OWN, AgentCalls, bearer

TARGETS: Final = {"inject": {"target": "/model/v1/messages"}, "passthrough": {"target": "/hook/v1/messages"}}


def stopping(*users: tuple[str, str]) -> InForce:
    """Return a list of our token service that stops these users."""
    rows = {
        name: Revocation(id=name, kind=Kind.SUBJECT, value=name, issuer=issuer, expires_at=NOW + 3000)
        for issuer, name in users
    }
    listed = Revocations(seq=1 + len(rows), issued_at=NOW, ttl_s=300, in_force=rows)
    return InForce(lists={STS: listed}, own=frozenset({STS}))


class World:
    """An entry with routes out of the mesh, and its revocations as the server puts them in force."""

    def __init__(self, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_text("sk-secret-of-the-sidecar\n")
        key.chmod(0o600)
        self.calls = AgentCalls(tmp_path)
        model = replace(MODEL, key=replace(KEY, file=str(key)))
        policy = replace(
            POLICY,
            outbound=OutboundRoutes([TO_CRM, model, HOOK]),
            entry=replace(ENTRY, may_call=OPEN | {"crm"}),
        )
        self._revoked = stopping()
        setup: Any = Setup(
            make_policy=lambda _, number: replace(policy, number=number),
            keys=self.calls.keys,
            exchanges=self.calls.exchanges,
            agent=None,
            needed_issuers=frozenset(),
        )
        self._snapshots = Snapshots(setup, lambda _: self._revoked)
        self._snapshots.follow(POLICY.workload)
        self.calls.outbound.snapshots = self._snapshots
        self.calls.watch.snapshots = self._snapshots
        outbound = self.calls.outbound
        self._caches = Caches(
            {"logins": lambda: outbound.features["logins"].judged, "plans": lambda: outbound.plans},
            clock=lambda: self.calls.now,
        )

    async def log_in(self) -> str:
        answer = await self.calls.call(bearer(signed(LOGIN_CLAIMS, typ=None).raw), target="/.sidecar/subject", host=OWN)
        assert answer.status == 200
        return str(json.loads(answer.body)["handle"])

    def revoke(self, *users: tuple[str, str]) -> None:
        """Do as ``Server._on_revocations``."""
        self._revoked = stopping(*users)
        renewal = self._snapshots.renew()
        assert renewal is not None
        self._caches.carry(renewal)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("user", "status"),
    [
        pytest.param((STS, "idp|alice"), 403, id="by its name in the mesh"),
        pytest.param((IDP, "alice"), 403, id="by its name at the login issuer"),
        pytest.param((STS, "idp|bob"), 200, id="another user"),
    ],
)
async def test_a_revoked_user_makes_no_further_call_out_of_the_mesh(
    tmp_path: Path, target: str, user: tuple[str, str], status: int
) -> None:
    world = World(tmp_path)
    shown = [("delegation-handle", await world.log_in())]
    assert (await world.calls.call(shown, **TARGETS[target], host=OWN)).status == 200
    world.revoke(user)
    answer = await world.calls.call(shown, **TARGETS[target], host=OWN)
    assert (answer.status, answer.reason) == (status, "revoked" if status == 403 else None)
