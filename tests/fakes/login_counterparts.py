"""A token service that users log in at, for each adapter that asks them, and a login as the tests make it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from delegation_core.login import plan_login
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Entry, Policy
from delegation_core.route import OutboundRoute
from sidecar.exchange.adapters.login import StillPending
from sidecar.exchange.cache import Issued
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts_settings import EndpointSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.world import World, policy, route
from tests.fakes.counterparts import Counterpart
from tests.fakes.lying_sts import Form, LyingSts, Reply
from tests.fakes.tokens import CRM, ISSUER, NOW, WRITER, changed, encode


class LyingUserServer(LyingSts):
    """Grants by either flow, and lies at its token endpoint. It asks users while ``may_ask_users`` is set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.may_ask_users = asyncio.Event()
        self.may_ask_users.set()

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        lawful = {
            "iss": self.mint.issuer,
            "sub": "user-4711",
            "aud": str(CRM),
            "client_id": "front-app",
            "scope": "crm.read",
            "iat": NOW,
            "exp": NOW + 290,
            "jti": "granted-1",
            "act": {"sub": str(WRITER)},
        }
        return changed(lawful, changes)

    def members(self, form: Form, token: str, **changes: object) -> dict[str, object]:
        lawful = {"access_token": token, "token_type": "Bearer", "expires_in": 290, "scope": "crm.read"}
        return changed(lawful, changes)

    async def reply(self, form: bytes) -> Reply:
        if b"agent_authorization" in form:
            await self.may_ask_users.wait()
            return Reply(body=encode({"request_code": "r", "poll_interval": 5, "expires_in": 600}))
        return await super().reply(form)


def allowing() -> Policy:
    entry = Entry(issuers={}, may_call=frozenset({"crm"}))
    return replace(policy(), outbound=OutboundRoutes([replace(route(), token="login")]), entry=entry)


async def log_in(world: World) -> Issued:
    """Let a user log in at once."""
    by = allowing()
    plan = plan_login("crm", policy=by)
    logins = world.exchange.logins
    begun = await logins.begin(plan, redirect_uri="https://app.example/back", reason="r")
    issued = await logins.complete(begun, "c0de" if begun.started.url else None, plan=plan, policy=by)
    assert not isinstance(issued, StillPending)
    return issued


def _no_plan(_user: str, _to: OutboundRoute) -> NoReturn:
    raise NotImplementedError("a login has no plan of an exchange")


def _in_browser(_url: str, _folder: Path) -> dict[str, Any]:
    return {"authorization_endpoint": "https://login.example/a"}


def _elsewhere(url: str, _folder: Path) -> dict[str, Any]:
    endpoint = Endpoint(url=url)
    return {"endpoints": {"agent_authorization": EndpointSettings(endpoint=endpoint, client_auth=AUTH)}}


AUTH: Final = ClientAuthSettings(audience=ISSUER)
# Nobody knows beforehand who logs in, nothing came before, and the entry says how long a grant may live.
TRUE: Final = frozenset({"another user", "another transaction", "a stronger login"})
LOGIN_COUNTERPARTS: Final[Mapping[str, Counterpart]] = {
    "obo-draft-02": Counterpart(
        adapter="obo-draft-02",
        grants=("authorization_code",),
        server=LyingUserServer,
        planned=_no_plan,
        settings=_in_browser,
        truths=TRUE,
    ),
    "agent-grant-draft": Counterpart(
        adapter="agent-grant-draft",
        grants=(
            "urn:ietf:params:oauth:grant-type:agent_authorization",
            "urn:ietf:params:oauth:grant-type:device_code",
        ),
        server=LyingUserServer,
        planned=_no_plan,
        settings=_elsewhere,
        truths=TRUE,
    ),
}
