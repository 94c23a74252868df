"""Keycloak as the login, our token service behind it: a user's browser, PKCE, an entry sidecar, and three hops."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from delegation_core.bearer import parse_bearer
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.world import FRONT, PLANNER, WRITER
from tests.interop.browser import visit
from tests.interop.front_app import SCOPE, FrontApp, register, serving
from tests.interop.keycloak import CLIENT_ID, Keycloak
from tests.interop.keycloak_mesh import log_in_at
from tests.interop.sts_servers.launch_keycloak import KeycloakServer
from tests.interop.sts_servers.launchers import Foreign
from tests.interop.sts_servers.login import Pkce, ScriptedBrowser

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]

OTHER: Final = "other-app"


@dataclass(frozen=True)
class Place:
    """Everything between the user and the CRM."""

    issuer: Keycloak
    mesh: Mesh
    front: FrontApp
    session: aiohttp.ClientSession


@pytest_asyncio.fixture(loop_scope="session")
async def place(foreign: Foreign) -> AsyncIterator[Place]:
    server = await foreign("keycloak")
    assert isinstance(server, KeycloakServer)

    def adjust(name: str, settings: dict[str, Any], _ports: Mapping[str, int]) -> None:
        log_in_at(server.keycloak, name, settings)

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with (
            open_mesh(Path(folder), adjust) as mesh,
            serving(server.keycloak, mesh, server.session) as front,
        ):
            yield Place(server.keycloak, mesh, front, server.session)


async def by_script(place: Place, user: str) -> str:
    """Log in without a browser's engine: the same pages, forms and redirects."""
    scripted = ScriptedBrowser(place.session)
    back = await scripted.log_in(f"{place.front.base}/", place.front.callback, user, f"of {user}")
    async with place.session.get(back) as answer:
        return await answer.text()


async def test_a_user_logs_in_with_chromium_and_three_agents_act_for_her(place: Place, browser: Browser) -> None:
    async with visit(browser, f"{place.front.base}/") as user:
        await user.page.fill("#username", "alice")
        await user.page.fill("#password", "of alice")
        await user.page.click("[type=submit]")
        shown = await user.page.inner_text("#answer")
        assert shown.startswith("200 ")
        await acted_for(place, "alice", shown)
        callback = user.page.url
        await user.page.goto(callback)
        assert await user.page.inner_text("body") == "no token: invalid_grant", "a code is redeemed once"
    assert len(place.mesh.agents["planner"].requests) == 1


async def test_a_scripted_login_does_the_same(place: Place) -> None:
    await acted_for(place, "bob", await by_script(place, "bob"))


async def acted_for(place: Place, user: str, shown: str) -> None:
    """Look at the last hop: the user's login, and all three agents."""
    login = parse_bearer(place.front.tokens[-1]).claims
    assert login["preferred_username"] == user
    await place.mesh.sidecars["crm"].wait_for_records(1)
    (arrived,) = [one for one in place.mesh.records("crm") if one["direction"] == "inbound"]
    assert arrived["subject"] == login["sub"]
    assert arrived["chain"] == [WRITER, PLANNER, FRONT]
    assert str(login["sub"]) in shown, "the CRM was told for whom"
    carried = parse_bearer(place.mesh.agents["crm"].headers()["delegation-token"]).claims
    assert carried["sub_id"] == {"format": "iss_sub", "iss": place.issuer.issuer, "sub": login["sub"]}
    assert carried["act"] == {"sub": WRITER, "act": {"sub": PLANNER, "act": {"sub": FRONT}}}
    assert (carried["acr"], carried["scope"]) == (login["acr"], "crm.read")


async def test_a_code_is_worth_nothing_without_its_verifier(place: Place) -> None:
    pkce = Pkce()
    url = pkce.authorization(place.issuer.authorization_endpoint, CLIENT_ID, SCOPE, place.front.callback)
    back = await ScriptedBrowser(place.session).log_in(url, place.front.callback, "alice", "of alice")
    stolen = Pkce(state=pkce.state)
    status, members = await place.front.redeem(stolen.code_of(back), stolen)
    assert (status, members["error"]) == (400, "invalid_grant")


async def test_a_login_without_pkce_is_refused(place: Place) -> None:
    parameters = {
        "response_type": "code", "client_id": CLIENT_ID, "scope": SCOPE, "redirect_uri": place.front.callback,
    }  # fmt: skip
    url = f"{place.issuer.authorization_endpoint}?{urlencode(parameters)}"
    async with place.session.get(url, allow_redirects=False) as answer:
        back = answer.headers["location"]
    assert parse_qs(urlsplit(back).query)["error"] == ["invalid_request"]


async def test_a_login_at_another_client_starts_no_chain(place: Place) -> None:
    await register(place.issuer, OTHER, place.front.callback)
    place.front.client_id = OTHER
    shown = await by_script(place, "alice")
    assert parse_bearer(place.front.tokens[-1]).claims["azp"] == OTHER
    assert "401 wrong_audience" in shown
    assert place.mesh.agents["planner"].requests == []
