"""Tunnels by CONNECT: each lawful one beside the same one refused with one fact changed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.delegation.connect import ConnectRoute, reachable_by_name
from sidecar.delegation.decide import decide_connect
from sidecar.delegation.inbound_routes import InboundRoutes
from sidecar.delegation.outbound_routes import OutboundRoutes, outbound_overlaps
from sidecar.delegation.permit import TunnelPermit
from sidecar.delegation.policy import Deny, Policy
from sidecar.delegation.reevaluate import tunnel_again
from sidecar.delegation.target import canonical_target
from sidecar.errors import Denied, Reason
from tests.delegation.world import (
    INBOUND_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    POLICY,
    SEARCH,
    TO_CRM,
    WRITER,
    delegation,
    reason_of,
    verification_key,
)

API = ConnectRoute(name="api", host="api.example:443")
OPEN_API = replace(API, without_handle=True)
OPEN = frozenset({"crm", "api"})
KEYS: Any = SimpleNamespace(find=lambda _issuer, _kid: verification_key(), known=lambda _issuer: True)


def with_route(route: ConnectRoute = API, **changes: Any) -> Policy:
    return replace(POLICY, outbound=OutboundRoutes([TO_CRM, route]), **changes)


def decide(route: ConnectRoute = API, **changes: Any) -> TunnelPermit:
    asked: dict[str, Any] = {"policy": with_route(route), "now": NOW, **changes}
    return decide_connect(asked.pop("delegation", delegation(may_call=OPEN)), route, **asked)


def denied_by(**rows: Any) -> Policy:
    return with_route(deny=Deny(**rows))


def test_a_request_that_may_call_the_route_opens_a_tunnel_until_its_token_ends() -> None:
    permit = decide()
    assert (permit.route, permit.ends_at) == (API, INBOUND_CLAIMS["exp"])
    assert permit.delegation is not None
    assert permit.delegation.token.subject == "alice"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"delegation": delegation()}, Reason.CALL_NOT_ALLOWED, id="not in may_call"),
        pytest.param({"delegation": None}, Reason.NO_REQUEST_CONTEXT, id="no handle"),
        pytest.param({"now": INBOUND_CLAIMS["exp"]}, Reason.TOKEN_EXPIRED, id="the token has ended"),
        pytest.param({"policy": denied_by(subjects={(None, "alice")})}, Reason.POLICY_DENIED, id="subject denied"),
        pytest.param({"policy": denied_by(actors={WRITER})}, Reason.POLICY_DENIED, id="workload denied"),
        pytest.param({"policy": denied_by(txns={"txn-1"})}, Reason.POLICY_DENIED, id="chain denied"),
    ],
)
def test_one_fact_changed_refuses_the_tunnel(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Denied) as refused:
        decide(**changes)
    assert refused.value.reason is reason


def test_without_a_handle_a_tunnel_opens_only_where_the_route_says_so() -> None:
    permit = decide(OPEN_API, delegation=None)
    assert (permit.delegation, permit.ends_at) == (None, float("inf"))
    with pytest.raises(Denied) as refused:
        decide(OPEN_API, delegation=None, policy=with_route(OPEN_API, deny=Deny(actors=frozenset({WRITER}))))
    assert refused.value.reason is Reason.POLICY_DENIED


def test_a_handle_that_does_not_open_the_route_is_not_taken_for_none() -> None:
    with pytest.raises(Denied) as refused:
        decide(OPEN_API, delegation=delegation())
    assert refused.value.reason is Reason.CALL_NOT_ALLOWED


def test_the_workload_handle_opens_the_tunnels_of_its_own_list_alone() -> None:
    listed = with_route(own_may_call=frozenset({"api"}))
    permit = decide(delegation=None, own=True, policy=listed)
    assert (permit.delegation, permit.own) == (None, True)
    again(permit, listed)
    for route in (API, OPEN_API):
        with pytest.raises(Denied) as refused:
            decide(route, delegation=None, own=True)
        assert refused.value.reason is Reason.CALL_NOT_ALLOWED
    with pytest.raises(Denied) as ended:
        again(permit, with_route())
    assert ended.value.reason is Reason.CALL_NOT_ALLOWED
    with pytest.raises(Denied) as denied:
        decide(delegation=None, own=True, policy=replace(listed, deny=Deny(actors=frozenset({WRITER}))))
    assert denied.value.reason is Reason.POLICY_DENIED


def test_nobody_else_makes_a_permit() -> None:
    with pytest.raises(TypeError):
        TunnelPermit(object(), None, API)
    with pytest.raises(AttributeError):
        decide().ends_at = 0.0


def again(permit: TunnelPermit, policy: Policy, now: int = NOW) -> None:
    tunnel_again(permit, keys=KEYS, policy=policy, now=now)


def test_a_tunnel_lasts_while_it_would_be_permitted() -> None:
    assert reason_of(again, decide(), with_route()) is None
    assert reason_of(again, decide(), with_route(), now=INBOUND_CLAIMS["exp"] + 60) is None  # expiry is the watch's
    assert reason_of(again, decide(OPEN_API, delegation=None), with_route(OPEN_API)) is None


@pytest.mark.parametrize(
    ("permit", "policy", "reason"),
    [
        pytest.param(decide(), POLICY, Reason.TARGET_DENIED, id="the route is gone"),
        pytest.param(decide(), with_route(replace(API, host="api.example:444")), Reason.TARGET_DENIED, id="port"),
        pytest.param(decide(), denied_by(subjects={(None, "alice")}), Reason.POLICY_DENIED, id="subject denied"),
        pytest.param(
            decide(OPEN_API, delegation=None), with_route(), Reason.TARGET_DENIED, id="a handle is needed now"
        ),
        pytest.param(
            decide(OPEN_API, delegation=None),
            with_route(OPEN_API, deny=Deny(actors=frozenset({WRITER}))),
            Reason.POLICY_DENIED,
            id="workload denied, without a handle",
        ),
    ],
)
def test_a_change_ends_the_tunnel(permit: TunnelPermit, policy: Policy, reason: Reason) -> None:
    with pytest.raises(Denied) as ended:
        again(permit, policy)
    assert ended.value.reason is reason


def test_a_route_that_the_inbound_route_no_longer_opens_ends_the_tunnel() -> None:
    opens = replace(SEARCH, may_call=OPEN)
    policy = with_route(inbound=InboundRoutes([opens]))
    permit = decide(delegation=delegation(may_call=OPEN, came_by=opens.mark), policy=policy)
    again(permit, policy)
    with pytest.raises(Denied) as ended:
        again(permit, with_route(inbound=InboundRoutes([SEARCH])))
    assert ended.value.reason is Reason.CALL_NOT_ALLOWED


def test_a_login_that_is_no_longer_accepted_ends_the_tunnel() -> None:
    entry = POLICY.entry
    assert entry is not None
    policy = with_route(entry=replace(entry, may_call=OPEN))
    permit = decide(delegation=delegation(LOGIN_CLAIMS, may_call=OPEN, entry=True), policy=policy)
    with pytest.raises(Denied) as ended:
        again(permit, replace(policy, entry=None))
    assert ended.value.reason is Reason.NOT_AN_ENTRY


@pytest.mark.parametrize("authority", ["api.example:443", "API.Example:443"])
def test_a_listed_host_and_port_is_found(authority: str) -> None:
    assert OutboundRoutes([TO_CRM, API]).find_tunnel(authority) is API


@pytest.mark.parametrize(
    "authority",
    [
        "api.example:444", "api.example:80", "api.example:0443", "api.example", "api.example.:443",
        "evil.api.example:443", "api.example.evil:443", "crm.mesh:443",
    ],
)  # fmt: skip
def test_any_other_host_or_port_has_no_tunnel(authority: str) -> None:
    with pytest.raises(Denied) as refused:
        OutboundRoutes([TO_CRM, API]).find_tunnel(authority)
    assert refused.value.reason is Reason.TARGET_DENIED


def test_a_tunnel_s_host_takes_no_ordinary_call() -> None:
    routes = OutboundRoutes([TO_CRM, API])
    with pytest.raises(Denied) as refused:
        routes.find("api.example:443", canonical_target(b"/"), own_authorities=())
    assert refused.value.reason is Reason.TARGET_DENIED
    assert (routes.names, routes.tunnels) == (("crm", "api"), (API,))


def test_one_host_may_have_a_route_of_calls_and_one_of_tunnels_and_no_second_one() -> None:
    calls = replace(TO_CRM, name="calls", host="api.example:443")
    assert outbound_overlaps([calls, API]) == []
    (overlap,) = outbound_overlaps([API, replace(API, name="again")])
    assert overlap.what == "api.example:443"
    (overlap,) = outbound_overlaps([API, replace(calls, name="api")])
    assert overlap.what == "the name"


@pytest.mark.parametrize("host", ["api.example:443", "10.0.0.1:22", "[2001:db8::1]:443", "a:65535"])
def test_a_route_names_host_and_port(host: str) -> None:
    route = ConnectRoute(name="api", host=host)
    name, port = route.address
    assert host in (f"{name}:{port}", f"[{name}]:{port}")
    assert route.is_literal == (host[0] in "1[")


@pytest.mark.parametrize(
    "host",
    [
        "api.example", "api.example:", "api.example:0", "api.example:0443", "api.example:65536", "API.example:443",
        ":443", "*.example:443", "api.example:443/", "u@api.example:443", "[::1", "[1.2.3.4]:443x", "::1:443",
        "[::g]:443", "api example:443",
    ],
)  # fmt: skip
def test_a_route_of_any_other_form_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        ConnectRoute(name="api", host=host)


@pytest.mark.parametrize("address", ["93.184.215.14", "10.0.0.7", "2606:2800::1", "fd00::7", "64:ff9b::a00:7"])
def test_a_name_may_lead_to_an_address_of_a_network(address: str) -> None:
    assert reachable_by_name(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1",
        "255.255.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192", "::1", "::", "fe80::1", "fe80::1%eth0",
        "ff02::1", "fec0::1", "fd00:ec2::254", "fd20:ce::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "nonsense",
    ],
)  # fmt: skip
def test_a_name_leads_neither_to_this_machine_nor_to_its_link_nor_to_metadata(address: str) -> None:
    assert not reachable_by_name(address)
