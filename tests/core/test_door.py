"""Login tokens at an entry's door: for exactly its URL, of any client; each beside the same token elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.bearer import Bearer
from delegation_core.decide import decide_entry
from delegation_core.door import Door
from delegation_core.door_url import is_origin, is_resource
from delegation_core.errors import Denied, Reason
from delegation_core.login_issuer import LoginKind
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import plan_outbound
from delegation_core.policy import Entry, Policy
from delegation_core.profile_presets import PRESETS
from delegation_core.reevaluate import login_again
from delegation_core.resource_metadata import ProtectedResource
from delegation_core.target import canonical_target
from tests.core.world import ENTRY, IDP, NOW, POLICY, TO_CRM, USERS, signed, verification_key

URL = "https://tools.acme.example"
PEOPLE = replace(
    USERS,
    kind=LoginKind.ACCESS_TOKEN,
    trusted=replace(USERS.trusted, profile=PRESETS["oidc-access-token"]),
    scope_from=replace(USERS.scope_from, claim="scope"),
)
DOOR = Door(
    resource=ProtectedResource(URL, (IDP,)),
    issuers={IDP: PEOPLE.at_door(URL)},
    routes=frozenset({"crm"}),
    origins=frozenset({"https://page.example"}),
)
WITH_DOOR = replace(POLICY, entry=replace(ENTRY, issuers={IDP: PEOPLE}, door=DOOR))
CLAIMS = {
    "iss": IDP, "sub": "alice", "aud": URL, "azp": "an-ide", "client_id": "an-ide", "scope": "sales",
    "iat": NOW, "exp": NOW + 600,
}  # fmt: skip


def shown(**changes: Any) -> Bearer:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return signed(claims, typ="at+jwt", key="idp")


def judged(bearer: Bearer, policy: Policy = WITH_DOOR, *, at_door: bool = True) -> Any:
    return decide_entry(bearer, key=verification_key("idp"), policy=policy, now=NOW, at_door=at_door)


def test_a_token_for_the_door_opens_its_routes_and_no_others() -> None:
    wider = replace(WITH_DOOR, entry=replace(ENTRY, issuers={IDP: PEOPLE}, door=DOOR, may_call=frozenset({"crm", "x"})))
    delegation = judged(shown(), wider)
    assert (delegation.may_call, delegation.at_door, delegation.scope) == ({"crm"}, True, {"crm.read"})
    assert plan_outbound(delegation, TO_CRM, policy=wider, now=NOW).scope == {"crm.read"}
    elsewhere = replace(wider, entry=replace(wider.entry or ENTRY, door=replace(DOOR, routes=frozenset({"x"}))))
    with pytest.raises(Denied) as refused:
        plan_outbound(delegation, TO_CRM, policy=elsewhere, now=NOW)
    assert refused.value.reason is Reason.CALL_NOT_ALLOWED


@pytest.mark.parametrize(
    "changes",
    [{"aud": "front-app"}, {"aud": [URL, "b"]}, {"aud": None}, {"aud": f"{URL}/x"}, {"aud": None, "azp": URL}],
)
def test_a_token_for_something_else_does_not(changes: dict[str, Any]) -> None:
    with pytest.raises(Denied) as refused:
        judged(shown(**changes))
    assert refused.value.reason is Reason.WRONG_AUDIENCE


def test_a_token_for_the_door_opens_nothing_else_even_of_the_front_apps_own_client() -> None:
    own = {"azp": "front-app", "client_id": "front-app"}
    with pytest.raises(Denied) as refused:
        judged(shown(**own), at_door=False)
    assert refused.value.reason is Reason.WRONG_AUDIENCE
    assert judged(shown(**own, aud="api"), at_door=False).at_door is False
    no_door = replace(WITH_DOOR, entry=replace(ENTRY, issuers={IDP: PEOPLE}))
    assert judged(shown(**own), no_door, at_door=False).at_door is False
    with pytest.raises(Denied) as gone:
        judged(shown(), no_door)
    assert gone.value.reason is Reason.WRONG_ISSUER


def test_a_last_slash_says_nothing_without_a_path() -> None:
    assert judged(shown(aud=f"{URL}/")).at_door is True
    with pytest.raises(Denied):
        judged(shown(aud=f"{URL}/", azp="front-app", client_id="front-app"), at_door=False)
    deep = f"{URL}/crm"
    door = replace(DOOR, resource=ProtectedResource(deep, (IDP,)), issuers={IDP: PEOPLE.at_door(deep)})
    policy = replace(WITH_DOOR, entry=replace(ENTRY, issuers={IDP: PEOPLE}, door=door))
    assert judged(shown(aud=deep), policy).at_door is True
    with pytest.raises(Denied):
        judged(shown(aud=f"{deep}/"), policy)


def test_a_call_in_flight_ends_when_its_door_closes_or_moves() -> None:
    class Keys:
        def find(self, _issuer: str, _kid: str | None) -> Any:
            return verification_key("idp")

        def known(self, _issuer: str) -> bool:
            return True

    keys: Any = Keys()
    delegation = judged(shown())
    assert login_again(delegation, keys, WITH_DOOR, NOW) is delegation
    moved_url = f"{URL}/new"
    moved = Door(
        resource=ProtectedResource(moved_url, (IDP,)), issuers={IDP: PEOPLE.at_door(moved_url)}, routes=DOOR.routes
    )
    for door, reason in ((None, Reason.WRONG_ISSUER), (moved, Reason.WRONG_AUDIENCE)):
        policy = replace(WITH_DOOR, entry=replace(ENTRY, issuers={IDP: PEOPLE}, door=door))
        with pytest.raises(Denied) as refused:
            login_again(delegation, keys, policy, NOW)
        assert refused.value.reason is reason
    with pytest.raises(Denied) as refused:
        login_again(delegation, keys, replace(WITH_DOOR, entry=None), NOW)
    assert refused.value.reason is Reason.NOT_AN_ENTRY


def test_a_door_leads_to_its_own_routes_alone() -> None:
    crm = replace(TO_CRM, host=None, prefix="/crm")
    outbound, other = OutboundRoutes([crm]), OutboundRoutes([replace(crm, name="other")])
    assert DOOR.route_of(canonical_target(b"/crm/1"), outbound) == crm
    for path, routes in ((b"/elsewhere", outbound), (b"/.sidecar/crm", outbound), (b"/crm/1", other)):
        with pytest.raises(Denied) as refused:
            DOOR.route_of(canonical_target(path), routes)
        assert refused.value.reason is Reason.NO_ROUTE


def test_what_makes_no_door() -> None:
    cases: tuple[dict[str, Any], ...] = (
        {"issuers": {}},
        {"issuers": {IDP: PEOPLE}},
        {"issuers": {IDP: replace(PEOPLE.at_door(URL), kind=LoginKind.ID_TOKEN)}},
        {"routes": frozenset()},
    )
    for broken in cases:
        with pytest.raises(ValueError, match=r"door|resource"):
            replace(DOOR, **broken)
    assert Entry(issuers={IDP: PEOPLE}, may_call=frozenset(), door=DOOR).users(at_door=True) == DOOR.issuers


def test_words_are_told_only_where_a_client_can_ask_for_them() -> None:
    assert DOOR.words_for(frozenset({"crm.read"})) == {"sales"}
    assert DOOR.words_for(frozenset({"nothing"})) == frozenset()
    by_group = replace(PEOPLE, scope_from=replace(PEOPLE.scope_from, claim="groups")).at_door(URL)
    assert replace(DOOR, issuers={IDP: by_group}).words_for(frozenset({"crm.read"})) == frozenset()


@pytest.mark.parametrize(
    ("url", "path", "covered"),
    [
        (URL, "/crm/mcp", True),
        (f"{URL}/crm", "/crm", True),
        (f"{URL}/crm", "/crm/mcp", True),
        (f"{URL}/crm", "/crmx", False),
        (f"{URL}/crm", "/", False),
    ],
)
def test_a_door_covers_its_path_and_what_is_below(url: str, path: str, *, covered: bool) -> None:
    door = replace(DOOR, resource=ProtectedResource(url, (IDP,)), issuers={IDP: PEOPLE.at_door(url)})
    assert door.covers(canonical_target(path.encode())) is covered


def test_names_and_origins() -> None:
    assert DOOR.is_named_by("tools.acme.example")
    assert DOOR.is_named_by("tools.acme.example:443")
    assert not DOOR.is_named_by("tools.acme.example:8443")
    assert DOOR.check_origin([]) is None
    assert DOOR.check_origin([b"https://page.example"]) == "https://page.example"
    for origins in ([b"https://page.example"] * 2, [b"null"], [b"https://PAGE.example"], [b""]):
        with pytest.raises(Denied) as refused:
            DOOR.check_origin(origins)
        assert refused.value.reason is Reason.ORIGIN_REFUSED
    assert is_origin("http://localhost:6274")
    assert not any(map(is_origin, ["*", "null", "https://a/", "https://A", "https://a:443", "ftp://a", "https://u@a"]))
    assert is_resource(f"{URL}:8443/crm")
    assert not any(
        map(is_resource, [f"{URL}/a/", f"{URL}:443", f"{URL}/a//b", f"{URL}/.well-known/x", "https://[", "x"])
    )
