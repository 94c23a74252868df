from __future__ import annotations

import pytest

from delegation_core.connect import ConnectRoute
from delegation_core.errors import Denied, Reason
from delegation_core.outbound_routes import OutboundRoutes, outbound_overlaps
from delegation_core.route import Overlap
from delegation_core.target import CanonicalTarget, canonical_target
from tests.core.test_route import OWN, outbound


def test_equal_overlaps_of_outbound_routes_are_listed() -> None:
    routes = [
        outbound("a", host="crm.mesh"),
        outbound("b", host="crm.mesh:80"),
        outbound("c", prefix="/crm"),
        outbound("d", prefix="/crm"),
        outbound("d", host="d.mesh"),
    ]
    assert outbound_overlaps(routes) == [
        Overlap("a", "b", "crm.mesh:80"),
        Overlap("c", "d", "/crm"),
        Overlap("d", "d", "the name"),
    ]
    with pytest.raises(ValueError, match="overlap"):
        OutboundRoutes(routes)


def test_outbound_routes_that_differ_do_not_overlap() -> None:
    assert outbound_overlaps([outbound("a", host="crm.mesh:8080"), outbound("b", host="crm.mesh")]) == []


TARGETS = OutboundRoutes(
    [
        outbound("by-host", host="crm.mesh"),
        outbound("by-port", host="crm.mesh:8080"),
        outbound("six", host="[::1]:9000"),
        outbound("by-prefix", prefix="/crm"),
        outbound("deeper", prefix="/crm/admin"),
    ]
)


@pytest.mark.parametrize(
    ("authority", "target", "name", "forwarded"),
    [
        pytest.param("crm.mesh", b"/a?b", "by-host", b"/a?b", id="host"),
        pytest.param("crm.mesh:80", b"/a", "by-host", b"/a", id="the default port"),
        pytest.param("CRM.Mesh", b"/a", "by-host", b"/a", id="host names have no case"),
        pytest.param("crm.mesh:8080", b"/a", "by-port", b"/a", id="another port"),
        pytest.param("[::1]:9000", b"/a", "six", b"/a", id="an IPv6 address"),
        pytest.param("crm.mesh", b"/crm/a", "by-host", b"/crm/a", id="a prefix counts on our own listener only"),
        pytest.param("127.0.0.1:7080", b"/crm/a/?b=c", "by-prefix", b"/a/?b=c", id="own authority"),
        pytest.param("LocalHost:7080", b"/crm/a", "by-prefix", b"/a", id="own authority in capitals"),
        pytest.param(None, b"/crm", "by-prefix", b"/", id="nothing left of the path"),
        pytest.param(None, b"/crm/", "by-prefix", b"/", id="only the slash left"),
        pytest.param(None, b"/crm/admin/x", "deeper", b"/x", id="the longest prefix"),
        pytest.param(None, b"/crm/administrator", "by-prefix", b"/administrator", id="whole segments"),
    ],
)
def test_a_target_is_found_and_its_prefix_stripped(
    authority: str | None, target: bytes, name: str, forwarded: bytes
) -> None:
    route, stripped = TARGETS.find(authority, canonical_target(target), own_authorities=OWN)
    assert (route.name, stripped.encode()) == (name, forwarded)
    assert canonical_target(stripped.encode()) == stripped


@pytest.mark.parametrize(
    ("authority", "path"),
    [
        pytest.param("mail.mesh", "/crm", id="another host"),
        pytest.param("crm.mesh.", "/a", id="a dot more"),
        pytest.param("xcrm.mesh", "/a", id="a longer name"),
        pytest.param("crm.mesh:443", "/a", id="another port"),
        pytest.param("", "/crm", id="an empty host is not ours"),
        pytest.param("127.0.0.1:7080", "/crmx", id="no such prefix"),
        pytest.param(None, "/", id="no prefix"),
    ],
)
def test_a_target_without_a_route_is_denied(authority: str | None, path: str) -> None:
    with pytest.raises(Denied) as refusal:
        TARGETS.find(authority, CanonicalTarget(path, b""), own_authorities=OWN)
    assert refusal.value.reason is Reason.TARGET_DENIED


def test_the_server_of_a_route_is_that_of_the_settings() -> None:
    crm = outbound("crm", host="crm.mesh")
    routes = OutboundRoutes([crm, ConnectRoute(name="pip", host="[2001:db8::1]:443")])
    assert routes.server_of("crm") == (crm.upstream.host, crm.upstream.port)
    assert routes.server_of("pip") == ("2001:db8::1", 443)
    assert routes.server_of("crm.mesh") is None


@pytest.mark.parametrize("authority", ["crm.mesh", None])
@pytest.mark.parametrize("begin", ["/crm/a", "/crm/admin", "/crm/Admin", "/x/admin", "/crm/administrator"])
def test_segments_behind_those_that_decide_change_no_route(authority: str | None, begin: str) -> None:
    def found(path: str) -> tuple[str, int] | None:
        try:
            route, target = TARGETS.find(authority, CanonicalTarget(path, b""), own_authorities=OWN)
        except Denied:
            return None
        return route.name, len(path) - len(target.path)

    assert TARGETS.depth == 2
    assert found(f"{begin}/1") == found(f"{begin}/2") == found(f"{begin}/1/2/") == found(f"{begin}/admin/crm")
