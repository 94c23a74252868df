from __future__ import annotations

from typing import Any

import pytest

from delegation_core.crossing import Crossing
from delegation_core.errors import Denied, Reason
from delegation_core.route import InboundRoute, OutboundRoute, Upstream

OWN = frozenset({"127.0.0.1:7080", "localhost:7080"})
STS = "https://sts.acme.example"
PARTNER = "https://sts.partner.example"
FROM_PARTNER = Crossing(issuer=PARTNER, subject_prefix="partner:", scopes={})


def inbound(name: str, path: str, *methods: str, prefix: bool = False, **changes: Any) -> InboundRoute:
    settings: dict[str, Any] = {"scopes": frozenset(), "peers": frozenset(), "issuers": frozenset()} | changes
    return InboundRoute(name=name, path=path, prefix=prefix, methods=frozenset(methods or {"GET"}), **settings)


def outbound(name: str, *, host: str | None = None, prefix: str | None = None, **changes: Any) -> OutboundRoute:
    settings: dict[str, Any] = {
        "upstream": Upstream(scheme="https", host="crm.internal", port=7443),
        "peer": None,
        "audience": "crm",
        "issuer": STS,
        "scopes": frozenset(),
    } | changes
    return OutboundRoute(name=name, host=host, prefix=prefix, **settings)


def test_a_route_may_allow_no_calls_at_all() -> None:
    assert inbound("a", "/a", max_calls=0).max_calls == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"path": "/a/../b"}, "cannot be served", id="dot segment"),
        pytest.param({"path": "/%61"}, "canonical", id="not canonical"),
        pytest.param({"path": "/a?b"}, "canonical", id="query"),
        pytest.param({"path": "/a/", "prefix": True}, "must not end with a slash", id="prefix with a slash"),
        pytest.param({"methods": frozenset()}, "needs methods", id="no methods"),
        pytest.param({"methods": frozenset({"get"})}, "upper-case", id="lower-case method"),
        pytest.param({"methods": frozenset({"GET", "CONNECT"})}, "CONNECT", id="CONNECT"),
        pytest.param({"methods": frozenset({"TRACE"})}, "TRACE", id="TRACE"),
        pytest.param({"name": "a b"}, "name", id="name"),
        pytest.param({"name": ""}, "name", id="empty name"),
        pytest.param({"linger_s": -1.0}, "negative", id="negative linger"),
        pytest.param({"linger_s": float("nan")}, "negative", id="linger that is not a number"),
        pytest.param({"linger_s": float("inf")}, "negative", id="endless linger"),
        pytest.param({"max_calls": -1}, "negative", id="negative calls"),
        pytest.param({"operations": {}}, "operations", id="operations of a route of plain HTTP"),
        pytest.param(
            {"operations": {}, "protocol": "mcp", "operation": "tools/list"},
            "operations",
            id="operations of an operation",
        ),
    ],
)
def test_an_inbound_route_that_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    settings: dict[str, Any] = {
        "name": "a",
        "path": "/a",
        "prefix": False,
        "methods": frozenset({"GET"}),
        "scopes": frozenset(),
        "peers": frozenset(),
        "issuers": frozenset(),
    }
    with pytest.raises(ValueError, match=text):
        InboundRoute(**settings | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"host": None}, "exactly one", id="neither host nor prefix"),
        pytest.param({"prefix": "/crm"}, "exactly one", id="both host and prefix"),
        pytest.param({"host": "CRM.mesh"}, "lower-case", id="upper-case host"),
        pytest.param({"host": "http://crm.mesh"}, "lower-case", id="a URL for a host"),
        pytest.param({"host": "crm.mesh:0"}, "lower-case", id="port zero"),
        pytest.param({"host": None, "prefix": "/crm/"}, "must not end with a slash", id="prefix with a slash"),
        pytest.param({"audience": ""}, "audience", id="no audience"),
        pytest.param({"observe_until": 1}, "observe_until", id="observing without a peer"),
        pytest.param({"issuer": ""}, "issuer", id="no issuer"),
        pytest.param({"name": "crm/1"}, "name", id="name"),
        pytest.param({"operations": {}}, "operations", id="operations of a route of plain HTTP"),
        pytest.param(
            {"operations": {}, "protocol": "mcp", "operation": "tools/list"},
            "operations",
            id="operations of an operation",
        ),
        pytest.param(
            {"crossings": {STS: Crossing(issuer=STS, subject_prefix="own:", scopes={})}},
            "crossing",
            id="a crossing from the route's own issuer",
        ),
        pytest.param(
            {"crossings": {"https://sts.other.example": FROM_PARTNER}},
            "crossing",
            id="a crossing under another issuer's name",
        ),
    ],
)
def test_an_outbound_route_that_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        outbound(**{"name": "crm", "host": "crm.mesh", "prefix": None} | changes)


@pytest.mark.parametrize(
    ("prefix", "path", "below"),
    [("/", "/", ""), ("/", "/tasks/7", "/tasks/7"), ("/a2a", "/a2a", ""), ("/a2a", "/a2a/tasks/7", "/tasks/7")],
)
def test_an_interface_may_begin_at_the_root(prefix: str, path: str, below: str) -> None:
    assert inbound("agent", prefix, prefix=True).below(path) == below


def test_a_crossing_stands_under_its_issuers_name() -> None:
    route = outbound("crm", host="crm.mesh", crossings={PARTNER: FROM_PARTNER})
    assert route.crossings[PARTNER] is FROM_PARTNER


def test_a_route_that_has_no_operations_has_none_by_name() -> None:
    for route in (inbound("a", "/a"), outbound("crm", host="crm.mesh")):
        assert route.for_operation(None) is route
        with pytest.raises(Denied) as refused:
            route.for_operation("tools/list")
        assert refused.value.reason is Reason.OPERATION_REFUSED
