"""Endpoints of a login: those of the settings, and those of metadata, on the host that is pinned."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.login import LoginPlan
from sidecar.exchange.adapters import agent_grant
from sidecar.exchange.adapters.login import Beginning, Started, StillPending, UserFlow, WantedLogin
from sidecar.exchange.client_auth import ClientAuthenticator, ClientAuthSettings
from sidecar.exchange.conversation import Conversation, Reached
from sidecar.exchange.login_conversation import (
    MAX_CODE_BYTES,
    MAX_URL_BYTES,
    Begun,
    LoginConversation,
    started_bytes,
)
from sidecar.exchange.metadata import KEPT_S
from sidecar.exchange.sts_settings import ExchangeSettings
from sidecar.identity.endpoint import EndpointAnswer
from tests.exchange.world import Clock, authority, route
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import WRITER, encode

HERE = "http://127.0.0.1:8443"
PLAN = LoginPlan(route=replace(route(), token="login"), actor=WRITER, life_s=300)
LAWFUL = {
    "issuer": HERE,
    "authorization_endpoint": "https://people.example/authorize",
    "agent_authorization_endpoint": f"{HERE}/ask",
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
}


class Server:
    """Its endpoints, each on a connection of its own; ``asked`` are the URLs."""

    def __init__(self, **changes: object) -> None:
        self.metadata: dict[str, object] = {**LAWFUL, **changes}
        self.asked: list[str] = []
        self.closed: list[str] = []

    def channel(self, url: str) -> Any:
        return Channel(self, url)


class Channel:
    def __init__(self, server: Server, url: str) -> None:
        self.server, self.url = server, url

    async def get(self, _etag: str | None) -> EndpointAnswer:
        self.server.asked.append(self.url)
        return EndpointAnswer(200, "application/json", None, encode(self.server.metadata))

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        self.server.asked.append(self.url)
        if b"device_code" in form:
            return EndpointAnswer(400, "application/json", None, encode({"error": "authorization_pending"}))
        return EndpointAnswer(200, "application/json", None, encode({"request_code": "r"}))

    async def close(self) -> None:
        self.server.closed.append(self.url)


class World:
    def __init__(self, adapter: str, server: Server | None = None, **settings: Any) -> None:
        self.server, self.clock = server or Server(), Clock(0.0)
        made = ExchangeSettings(issuer=HERE, token_endpoint=f"{HERE}/token", adapter=adapter, **settings)
        source = OwnIdentity(authority(), WRITER)
        shower = ClientAuthenticator(ClientAuthSettings(audience=HERE), source, Clock(0.0))
        reached = {"token": Reached(self.server.channel(f"{HERE}/token"), shower)}
        self.talk = LoginConversation(
            made,
            cast("Any", source),
            Conversation(reached, retries=0),
            shower,
            self.server.channel,
            monotonic=self.clock,
        )

    async def begin(self, redirect_uri: str | None = "https://app.example/back") -> Begun:
        return await self.talk.begin(PLAN, set(), redirect_uri=redirect_uri, reason="r")


async def reason_of(world: World, **options: Any) -> Reason:
    with pytest.raises(SidecarError) as caught:
        await world.begin(**options)
    return caught.value.reason


async def test_the_browser_is_sent_where_the_metadata_says_and_nothing_is_asked_there() -> None:
    world = World("obo-draft-02")
    begun = await world.begin()
    url = urlsplit(begun.started.url or "")
    assert (url.netloc, begun.names_issuer) == ("people.example", True)
    assert world.server.asked == [f"{HERE}/.well-known/oauth-authorization-server"]


async def test_a_place_in_the_settings_needs_no_metadata() -> None:
    world = World("obo-draft-02", authorization_endpoint="https://set.example/authorize")
    begun = await world.begin()
    assert urlsplit(begun.started.url or "").netloc == "set.example"
    assert (world.server.asked, begun.names_issuer) == ([], False)


async def test_two_logins_share_no_state_and_no_verifier() -> None:
    world = World("obo-draft-02")
    wanted = [(await world.begin()).wanted for _ in range(2)]
    assert len({one.state for one in wanted} | {one.verifier for one in wanted}) == 4


async def test_a_browser_needs_a_way_back_and_a_user_who_is_asked_elsewhere_none() -> None:
    assert await reason_of(World("obo-draft-02"), redirect_uri=None) is Reason.LOGIN_MALFORMED
    assert (await World("agent-grant-draft").begin(redirect_uri=None)).started.code == "r"


async def test_an_endpoint_of_the_metadata_is_asked_and_polled_at_ours() -> None:
    world = World("agent-grant-draft")
    begun = await world.begin()
    assert await world.talk.complete(begun, None, WRITER, set()) == StillPending()
    assert world.server.asked[1:] == [f"{HERE}/ask", f"{HERE}/token"]


@pytest.mark.parametrize(
    "url", ["https://else.example/ask", "http://127.0.0.1:8444/ask", "http://localhost:8443/ask", "javascript:x", None]
)
async def test_an_endpoint_that_is_not_on_the_pinned_host_is_not_asked(url: str | None) -> None:
    world = World("agent-grant-draft", Server(agent_authorization_endpoint=url))
    assert await reason_of(world) is Reason.STS_BAD_RESPONSE
    assert world.server.asked == [f"{HERE}/.well-known/oauth-authorization-server"]


@pytest.mark.parametrize(("length", "usable"), [(2048, True), (2049, False)])
async def test_an_endpoint_without_end_is_none(length: int, usable: bool) -> None:
    url = f"{LAWFUL['authorization_endpoint']}?".ljust(length, "x")
    world = World("obo-draft-02", Server(authorization_endpoint=url))
    if usable:
        assert (await world.begin()).started.url
    else:
        assert await reason_of(world) is Reason.STS_BAD_RESPONSE


@pytest.mark.parametrize(("length", "usable"), [(7000, True), (9000, False)])
async def test_a_login_waits_with_no_url_without_end(length: int, usable: bool) -> None:
    world = World("obo-draft-02", authorization_endpoint="https://l.example/?".ljust(length, "x"))
    if usable:
        begun = await world.begin()
        assert length < started_bytes(begun.started) <= MAX_URL_BYTES
    else:
        with pytest.raises(SidecarError) as caught:
            await world.begin()
        assert (caught.value.reason, caught.value.detail[:4]) == (Reason.STS_TOO_LARGE, "url:")


@pytest.mark.parametrize(("code", "usable"), [("c" * MAX_CODE_BYTES, True), ("é" * (MAX_CODE_BYTES // 2 + 1), False)])
async def test_a_code_of_any_adapter_has_as_many_bytes_and_no_more(
    monkeypatch: pytest.MonkeyPatch, code: str, usable: bool
) -> None:
    def begin(_wanted: WantedLogin) -> Beginning:
        yield from ()
        return Started(code=code)

    flow = UserFlow(begin=begin, complete=agent_grant.complete, browser=False)
    monkeypatch.setattr(LoginConversation, "_flow", flow)
    world = World("agent-grant-draft")
    if usable:
        assert (await world.begin()).started.code == code
    else:
        assert await reason_of(world) is Reason.STS_TOO_LARGE


async def test_an_endpoint_that_moves_is_asked_at_its_new_place_alone() -> None:
    world = World("agent-grant-draft")
    await world.begin()
    world.server.metadata["agent_authorization_endpoint"] = f"{HERE}/other"
    world.clock.now += KEPT_S
    await world.begin()
    assert [url for url in world.server.asked if "well-known" not in url] == [f"{HERE}/ask", f"{HERE}/other"]
    assert world.server.closed == [f"{HERE}/ask"]
