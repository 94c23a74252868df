"""Tunnels by CONNECT: each lawful one beside the same one refused with one fact changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from types import SimpleNamespace
from typing import Any, Final

import pytest

from delegation_core.connect import SPECIAL, ConnectRoute, reachable_by_name
from delegation_core.decide import decide_connect
from delegation_core.errors import Denied, Reason
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import OutboundRoutes, outbound_overlaps
from delegation_core.permit import TunnelPermit
from delegation_core.policy import Deny, Policy
from delegation_core.reevaluate_exceptions import tunnel_again
from delegation_core.target import canonical_target
from tests.core.world import (
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
from tests.sources import PACKAGES, ROOT, python_files

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
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "nonsense", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1::",
        "64:ff9b:1:ffff:ffff:ffff:808:808", "::a9fe:a9fe", "::7f00:1", "::808:808", "::ffff:0:808:808",
        "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "2001:0:808:808:0:0:5601:5601", "2606:2800::5efe:a9fe:a9fe",
        "fd00::200:5efe:7f00:1", "fd00:ec2::254%eth0", "::1%lo",
    ],
)  # fmt: skip
def test_a_name_leads_neither_to_this_machine_nor_to_its_link_nor_to_metadata(address: str) -> None:
    assert not reachable_by_name(address)


# The rows of IANA's registries of special-purpose addresses, with their column "Globally Reachable". "own": not global,
# but the network of an operator, where tunnels lead on purpose. "inner": the embedded address decides.
REGISTRY: Final = {
    "0.0.0.0/8": "no", "0.0.0.0/32": "no", "10.0.0.0/8": "own", "100.64.0.0/10": "own", "127.0.0.0/8": "no",
    "169.254.0.0/16": "no", "172.16.0.0/12": "own", "192.0.0.0/24": "no", "192.0.0.0/29": "no", "192.0.0.8/32": "no",
    "192.0.0.9/32": "global", "192.0.0.10/32": "global", "192.0.0.170/32": "no", "192.0.0.171/32": "no",
    "192.0.2.0/24": "no", "192.31.196.0/24": "global", "192.52.193.0/24": "global", "192.88.99.0/24": "no",
    "192.168.0.0/16": "own", "192.175.48.0/24": "global", "198.18.0.0/15": "no", "198.51.100.0/24": "no",
    "203.0.113.0/24": "no", "240.0.0.0/4": "no", "255.255.255.255/32": "no",
    "::1/128": "no", "::/128": "no", "::ffff:0:0/96": "inner", "64:ff9b::/96": "inner", "64:ff9b:1::/48": "no",
    "100::/64": "no", "100:0:0:1::/64": "no", "2001::/23": "no", "2001::/32": "inner", "2001:1::1/128": "global",
    "2001:1::2/128": "global", "2001:1::3/128": "global", "2001:2::/48": "no", "2001:3::/32": "global",
    "2001:4:112::/48": "global", "2001:10::/28": "no", "2001:20::/28": "global", "2001:30::/28": "global",
    "2001:db8::/32": "no", "2002::/16": "inner", "2620:4f:8000::/48": "global", "3fff::/20": "no", "5f00::/16": "no",
    "fc00::/7": "own", "fe80::/10": "no",
}  # fmt: skip
FURTHER: Final = {  # multicast, deprecated forms, and metadata of clouds
    "224.0.0.0/4", "ff00::/8", "fec0::/10", "::/96", "::ffff:0:0:0/96", "100.100.100.200/32", "168.63.129.16/32",
    "fd00:ec2::254/128", "fd20:ce::254/128",
}  # fmt: skip
MORE_SPECIFIC: Final = {ip_network(one) for one in (*REGISTRY, *FURTHER)}


@pytest.mark.parametrize(("row", "reach"), [*REGISTRY.items(), *((one, "no") for one in sorted(FURTHER))])
def test_each_row_of_the_registries_is_judged(row: str, reach: str) -> None:
    network = ip_network(row)
    inside = {network[0], network[-1], network[network.num_addresses // 2]}
    for other in MORE_SPECIFIC:
        if other != network and other[0] in network and other.prefixlen > network.prefixlen:
            inside = {one for one in inside if one not in other}
    for address in inside:
        if reach != "inner":
            assert reachable_by_name(str(address)) == (reach != "no"), address
    assert inside or row in {"0.0.0.0/8", "192.0.0.0/24"}


EMBEDDINGS: Final[dict[str, Callable[[int], int]]] = {
    "v4-mapped": lambda inner: 0xFFFF << 32 | inner,
    "NAT64": lambda inner: 0x0064FF9B << 96 | inner,
    "6to4": lambda inner: 0x2002 << 112 | inner << 80 | 1,
    "Teredo client": lambda inner: 0x20010000 << 96 | 0x08080808 << 64 | inner ^ 0xFFFFFFFF,
    "Teredo server": lambda inner: 0x20010000 << 96 | inner << 64 | 0x08080808 ^ 0xFFFFFFFF,
    "ISATAP": lambda inner: 0x26062800 << 96 | 0x00005EFE << 32 | inner,
    "ISATAP, universal": lambda inner: 0x26062800 << 96 | 0x02005EFE << 32 | inner,
}


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize(
    "inner", ["8.8.8.8", "10.0.0.7", "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.100.100.200"]
)
def test_an_embedded_address_is_judged_as_by_itself(embedding: str, inner: str) -> None:
    address = str(IPv6Address(EMBEDDINGS[embedding](int(IPv4Address(inner)))))
    assert reachable_by_name(address) == reachable_by_name(inner), address


def test_every_row_of_the_table_is_one_of_the_registries_or_named_here() -> None:
    assert set(SPECIAL) <= REGISTRY.keys() | FURTHER


def test_no_other_module_judges_addresses_by_ranges_of_its_own() -> None:
    judging = re.compile(r"\b(is_global|is_private|is_link_local|is_reserved|is_site_local|sixtofour|teredo)\b|64:ff9b")
    sources = python_files(*PACKAGES)
    found = {str(one.relative_to(ROOT)) for one in sources if judging.search(one.read_text(encoding="utf-8"))}
    # the health check asks its own machine, and tells which of its own addresses are the machine's and the link's
    assert found == {"core/delegation_core/connect.py", "sidecar/healthcheck.py"}
