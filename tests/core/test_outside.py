"""Calls with a static key: each lawful one beside the same call refused with one fact changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.decide import OWN_CALL_S, decide_entry, decide_own
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.outside import PRESETS, InjectedKey, OutsideRoute, makes_credentials
from delegation_core.permit import OwnPermit
from delegation_core.policy import Deny, Policy
from delegation_core.reevaluate_exceptions import own_again
from delegation_core.revocation import InForce, Kind
from delegation_core.revocations_kept import Revocation, Revocations
from delegation_core.route import Upstream
from tests.core.test_connect import KEYS
from tests.core.world import (
    ENTRY,
    INBOUND_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    POLICY,
    STS,
    TO_CRM,
    USERS,
    delegation,
    reason_of,
    signed,
    verification_key,
)

KEY = InjectedKey(file="/keys/model", field="x-api-key", scheme="", owner="ml@acme.example", until=NOW + 3600)
MODEL = OutsideRoute(
    name="model",
    host=None,
    prefix="/model",
    upstream=Upstream(scheme="https", host="api.model.example", port=443),
    token="inject",
    methods=frozenset({"POST"}),
    paths=frozenset({"/v1/messages"}),
    path_prefixes=frozenset({"/v1/files"}),
    key=KEY,
)
HOOK = replace(MODEL, name="hook", prefix="/hook", token="passthrough", key=None)
WITH = replace(POLICY, outbound=OutboundRoutes([TO_CRM, MODEL, HOOK]))
SEARCH = replace(POLICY.inbound.routes[0], may_call=frozenset({"crm", "model", "hook"}))
OPEN = frozenset({"crm", "model", "hook"})


def stopped(kind: Kind) -> InForce:
    """Return a list of our token service that stops the workload."""
    one = Revocation(id="r1", kind=kind, value=str(POLICY.workload), issuer=STS, expires_at=NOW + 60)
    return InForce(lists={STS: Revocations(in_force={"r1": one})}, own=frozenset({STS}))


def decide(**changes: Any) -> OwnPermit:
    asked: dict[str, Any] = {"method": "POST", "path": "/v1/messages", "policy": WITH, "now": NOW, **changes}
    return decide_own(asked.pop("delegation", delegation(may_call=OPEN)), asked.pop("route", MODEL), **asked)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/files", "/v1/files/7"])
@pytest.mark.parametrize("route", [MODEL, HOOK], ids=["inject", "passthrough"])
def test_a_call_within_its_route_is_permitted_until_the_first_end(path: str, route: OutsideRoute) -> None:
    permit = decide(path=path, route=route)
    assert (permit.route, permit.path, permit.ends_at) == (route, path, delegation().token.expires_at)
    short = replace(MODEL, key=replace(KEY, until=NOW + 1))
    assert decide(route=short).ends_at == NOW + 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"delegation": delegation()}, Reason.CALL_NOT_ALLOWED, id="not in may_call"),
        pytest.param({"path": "/v1/messages/x"}, Reason.TARGET_DENIED, id="below an exact path"),
        pytest.param({"path": "/v1/file"}, Reason.TARGET_DENIED, id="half a segment"),
        pytest.param({"method": "GET"}, Reason.METHOD_REFUSED, id="another method"),
        pytest.param({"now": INBOUND_CLAIMS["exp"]}, Reason.TOKEN_EXPIRED, id="the token has ended"),
        pytest.param(
            {"route": replace(MODEL, key=replace(KEY, until=NOW))}, Reason.POLICY_DENIED, id="the route has ended"
        ),
        pytest.param(
            {"policy": replace(WITH, deny=Deny(jtis=frozenset({"token-2"})))}, Reason.POLICY_DENIED, id="deny list"
        ),
        pytest.param(
            {
                "path": "/v1/files/admin/keys",
                "route": replace(MODEL, key=replace(KEY, makes_credentials=("/v1/files/*/keys",))),
            },
            Reason.TARGET_DENIED,
            id="a path that gives out credentials",
        ),
    ],
)
def test_the_same_call_with_one_fact_changed_is_refused(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        decide(**changes)
    assert refusal.value.reason is reason


OWN = replace(WITH, own_may_call=frozenset({"model", "hook"}))


@pytest.mark.parametrize(("route", "ends_at"), [(MODEL, NOW + OWN_CALL_S), (HOOK, NOW + OWN_CALL_S)])
def test_the_workload_itself_may_call_what_its_handle_lists(route: OutsideRoute, ends_at: int) -> None:
    permit = decide(delegation=None, route=route, policy=OWN)
    assert (permit.delegation, permit.ends_at) == (None, ends_at)
    own_again(permit, keys=KEYS, policy=OWN, now=NOW + 2 * OWN_CALL_S)  # its time is the caller's business
    short = replace(MODEL, key=replace(KEY, until=NOW + 1))
    assert decide(delegation=None, route=short, policy=OWN).ends_at == NOW + 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"policy": WITH}, Reason.CALL_NOT_ALLOWED, id="not listed"),
        pytest.param({"method": "GET"}, Reason.METHOD_REFUSED, id="another method"),
        pytest.param({"path": "/v1"}, Reason.TARGET_DENIED, id="another path"),
        pytest.param(
            {"route": replace(MODEL, key=replace(KEY, until=NOW))}, Reason.POLICY_DENIED, id="the route has ended"
        ),
        pytest.param(
            {"policy": replace(OWN, deny=Deny(actors=frozenset({OWN.workload})))}, Reason.POLICY_DENIED, id="actor"
        ),
        pytest.param(
            {"policy": replace(OWN, deny=Deny(subjects=frozenset({(None, str(OWN.workload))})))},
            Reason.POLICY_DENIED,
            id="subject",
        ),
        pytest.param({"policy": replace(OWN, deny=Deny(revoked=stopped(Kind.ACTOR)))}, Reason.REVOKED, id="revoked"),
        pytest.param(
            {"policy": replace(OWN, deny=Deny(revoked=stopped(Kind.SUBJECT)))}, Reason.REVOKED, id="revoked subject"
        ),
        pytest.param(
            {"policy": replace(OWN, deny=Deny(revoked=InForce(own=frozenset({STS}), stale=frozenset({STS}))))},
            Reason.REVOCATIONS_STALE,
            id="stale list",
        ),
    ],
)
def test_its_own_call_with_one_fact_changed_is_refused(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(SidecarError) as refusal:
        decide(**{"delegation": None, "policy": OWN, **changes})
    assert refusal.value.reason is reason


def test_its_own_permit_falls_with_the_list() -> None:
    permit = decide(delegation=None, policy=OWN)
    with pytest.raises(Denied) as refusal:
        own_again(permit, keys=KEYS, policy=WITH, now=NOW)
    assert refusal.value.reason is Reason.CALL_NOT_ALLOWED


def test_only_a_decision_makes_the_permit() -> None:
    with pytest.raises(TypeError):
        OwnPermit(object(), delegation(), MODEL, method="POST", path="/v1/messages", ends_at=NOW)


def closed(policy: Policy) -> Policy:
    return replace(policy, outbound=OutboundRoutes([TO_CRM, HOOK]))


def widened(policy: Policy) -> Policy:
    return replace(policy, outbound=OutboundRoutes([TO_CRM, HOOK, replace(MODEL, path_prefixes=frozenset({"/v1"}))]))


def denied(policy: Policy) -> Policy:
    return replace(policy, deny=Deny(actors=frozenset({policy.workload})))


def test_a_permit_stands_while_nothing_changes() -> None:
    permit = decide()
    assert reason_of(own_again, permit, keys=KEYS, policy=WITH, now=NOW) is None
    expired = delegation().token.expires_at + 5  # its time is the caller's business
    assert reason_of(own_again, permit, keys=KEYS, policy=WITH, now=expired) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [(closed, Reason.TARGET_DENIED), (widened, Reason.TARGET_DENIED), (denied, Reason.POLICY_DENIED)],
)
def test_a_permit_falls_with_its_route_or_its_subject(change: Callable[[Policy], Policy], reason: Reason) -> None:
    permit = decide()
    with pytest.raises(Denied) as refusal:
        own_again(permit, keys=KEYS, policy=change(WITH), now=NOW)
    assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"upstream": Upstream(scheme="http", host="a", port=80)}, "https", id="plain http"),
        pytest.param({"methods": frozenset()}, "methods and paths", id="no method"),
        pytest.param({"paths": frozenset(), "path_prefixes": frozenset()}, "methods and paths", id="no path"),
        pytest.param({"methods": frozenset({"CONNECT"})}, "CONNECT", id="connect"),
        pytest.param({"paths": frozenset({"/a/../b"})}, "path", id="no canonical path"),
        pytest.param({"path_prefixes": frozenset({"/a/"})}, "slash", id="prefix with a slash"),
        pytest.param({"key": None}, "inject", id="inject without a key"),
        pytest.param({"observe_until": NOW}, "observe_until", id="observing with the sidecar's key"),
        pytest.param({"token": "passthrough"}, "inject", id="a key that is not injected"),
        pytest.param({"host": "a.example"}, "exactly one", id="two matches"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(MODEL, **changes)


@pytest.mark.parametrize(
    ("port", "host", "authority"), [(443, "a.example", b"a.example"), (8443, "::1", b"[::1]:8443")]
)
def test_the_host_of_a_request_has_no_default_port(port: int, host: str, authority: bytes) -> None:
    assert replace(MODEL, upstream=Upstream(scheme="https", host=host, port=port)).authority == authority


@pytest.mark.parametrize(
    ("preset", "path", "refused"),
    [
        ("openai", "/v1/organization/admin_api_keys", True),
        ("openai", "/v1/Organization", True),
        ("openai", "//v1//organization", True),
        ("openai", "/v1/realtime/client_secrets", True),
        ("openai", "/v1/responses", False),
        ("openai", "/v1/organizations", False),
        ("anthropic", "/v1/organizations/api_keys", True),
        ("anthropic", "/v1/messages", False),
        ("github", "/app/installations/7/access_tokens", True),
        ("github", "/repos/acme/shop/keys", True),
        ("github", "/repos/acme/keys", False),
        ("github", "/repositories/7/keys", True),
        ("github", "/organizations/7/hooks", True),
        ("github", "/repositories/7/issues", False),
        ("github", "/repos/acme/shop/issues", False),
    ],
)
def test_a_preset_knows_the_paths_that_give_out_credentials(preset: str, path: str, refused: bool) -> None:
    assert makes_credentials(path, PRESETS[preset].makes_credentials) is refused


def test_routes_of_both_kinds_share_names_and_targets() -> None:
    routes = OutboundRoutes([TO_CRM, MODEL])
    assert (routes.routes, routes.outside) == ((TO_CRM,), (MODEL,))
    with pytest.raises(ValueError, match="overlap"):
        OutboundRoutes([TO_CRM, replace(MODEL, name="crm")])


def a_mesh_name_revoked(policy: Policy) -> Policy:
    return replace(policy, deny=Deny(subjects=frozenset({(STS, USERS.mesh_subject(str(LOGIN_CLAIMS["sub"])))})))


def no_such_issuer(policy: Policy) -> Policy:
    assert policy.entry is not None
    return replace(policy, entry=replace(policy.entry, issuers={}))


@pytest.mark.parametrize(
    ("change", "keys", "reason"),
    [
        pytest.param(a_mesh_name_revoked, KEYS, Reason.POLICY_DENIED, id="denied by its name in the mesh"),
        pytest.param(no_such_issuer, KEYS, Reason.WRONG_ISSUER, id="the issuer of users was removed"),
        pytest.param(
            lambda policy: policy,
            SimpleNamespace(find=lambda _issuer, _kid: None, known=lambda _issuer: True),
            Reason.UNKNOWN_KEY,
            id="its key was withdrawn",
        ),
    ],
)
def test_a_call_of_a_login_ends_with_what_the_login_rests_on(
    change: Callable[[Policy], Policy], keys: Any, reason: Reason
) -> None:
    policy = replace(WITH, entry=replace(ENTRY, may_call=OPEN))
    login = decide_entry(signed(LOGIN_CLAIMS, typ=None), key=verification_key(), policy=policy, now=NOW)
    permit = decide(delegation=login, policy=policy)
    own_again(permit, keys=KEYS, policy=policy, now=NOW)
    with pytest.raises(Denied) as refusal:
        own_again(permit, keys=keys, policy=change(policy), now=NOW)
    assert refusal.value.reason is reason
