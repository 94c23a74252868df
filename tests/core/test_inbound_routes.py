from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.inbound_routes import InboundRoutes, inbound_overlaps
from delegation_core.operation import Operations
from delegation_core.route import InboundRoute, Overlap
from tests.core.test_route import inbound

ROUTES = InboundRoutes(
    [
        inbound("all", "/", prefix=True),
        inbound("tools", "/tools", prefix=True),
        inbound("crm", "/tools/crm", "GET", "POST"),
        inbound("crm-delete", "/tools/crm", "DELETE"),
        inbound("admin", "/tools/admin", "POST", prefix=True),
        inbound("index", "/tools/"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        pytest.param("GET", "/", "all", id="root"),
        pytest.param("GET", "/x/y", "all", id="the widest"),
        pytest.param("GET", "/toolsx", "all", id="a prefix ends with a segment"),
        pytest.param("GET", "/tools", "tools", id="a prefix covers itself"),
        pytest.param("GET", "/tools/x", "tools", id="a prefix covers what is below"),
        pytest.param("GET", "/tools/", "index", id="exact before prefix"),
        pytest.param("GET", "/tools/crm", "crm", id="exact"),
        pytest.param("DELETE", "/tools/crm", "crm-delete", id="one path, disjoint methods"),
        pytest.param("POST", "/tools/admin/x/y", "admin", id="the longest prefix"),
        pytest.param("GET", "/tools/crm/x", "tools", id="exact is not prefix"),
    ],
)
def test_the_most_specific_route_is_found(method: str, path: str, name: str) -> None:
    assert ROUTES.find(method, path).name == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("PUT", "/tools/crm", id="exact"),
        pytest.param("HEAD", "/tools/crm", id="HEAD is not implied"),
        pytest.param("get", "/tools/crm", id="methods are case-sensitive"),
        pytest.param("GET", "/tools/admin/x", id="a wider route that takes the method is not tried"),
    ],
)
def test_a_method_the_most_specific_route_does_not_take_is_refused(method: str, path: str) -> None:
    with pytest.raises(Denied) as refusal:
        ROUTES.find(method, path)
    assert refusal.value.reason is Reason.METHOD_REFUSED


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/tools/CRM", id="case of an exact path"),
        pytest.param("/Tools/crm", id="case of its parent"),
        pytest.param("/tools/crm/", id="a slash more"),
        pytest.param("/tools/Admin/x", id="case of a prefix"),
        pytest.param("/TOOLS/x", id="case of a wider prefix"),
    ],
)
def test_a_twin_of_a_specific_path_is_not_judged_by_a_wider_route(path: str) -> None:
    assert ROUTES.allowed_methods(path) == frozenset()
    for method in ("GET", "POST"):
        with pytest.raises(Denied) as refusal:
            ROUTES.find(method, path)
        assert refusal.value.reason is Reason.NO_ROUTE


def test_twins_that_are_both_configured_are_told_apart() -> None:
    routes = InboundRoutes([inbound("low", "/a"), inbound("high", "/A"), inbound("slash", "/a/")])
    assert [routes.find("GET", path).name for path in ("/a", "/A", "/a/")] == ["low", "high", "slash"]
    prefixes = InboundRoutes([inbound("low", "/a", prefix=True), inbound("high", "/A", prefix=True)])
    assert [prefixes.find("GET", path).name for path in ("/a/x", "/A/x")] == ["low", "high"]


def by_both_spellings(routes: list[InboundRoute], path: str) -> frozenset[str]:
    """Return the methods of a path by the plain rule: no wider route covers a twin of a more specific one."""

    def longest(prefixes: list[str], path: str) -> str:
        return max((one for one in prefixes if one == "/" or (path + "/").startswith(one + "/")), key=len, default="")

    exact = {route.path for route in routes if not route.prefix}
    prefixes = [route.path for route in routes if route.prefix]
    found = longest(prefixes, path)
    if path not in exact and found != path:
        folded = longest([one.lower() for one in prefixes], path.lower())
        if len(folded) > len(found) or path.rstrip("/").lower() in {one.rstrip("/").lower() for one in exact}:
            return frozenset()
    of_path = [one for one in routes if (one.path, one.prefix) == ((path, False) if path in exact else (found, True))]
    return frozenset().union(*(route.methods for route in of_path))


PATHS = st.lists(st.sampled_from(["a", "A", "b", "crm", "CRM", "%C3%A9"]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    st.lists(st.tuples(PATHS, st.booleans()), min_size=1, max_size=6, unique=True),
    PATHS,
    st.sampled_from(["", "/"]),
)
def test_the_route_of_a_path_is_that_of_the_plain_rule(configured: list[tuple[str, bool]], path: str, end: str) -> None:
    path = path if path == "/" else path + end
    routes = [inbound(f"r{at}", one, prefix=prefix) for at, (one, prefix) in enumerate(configured)]
    assert InboundRoutes(routes).allowed_methods(path) == by_both_spellings(routes, path)


def test_without_a_route_there_is_nothing_to_find() -> None:
    with pytest.raises(Denied) as refusal:
        InboundRoutes([inbound("a", "/a", prefix=True)]).find("GET", "/b")
    assert refusal.value.reason is Reason.NO_ROUTE


def test_the_allowed_methods_of_a_path_are_those_of_its_most_specific_route() -> None:
    assert ROUTES.allowed_methods("/tools/crm") == {"GET", "POST", "DELETE"}
    assert ROUTES.allowed_methods("/tools/admin/x") == {"POST"}


def test_registered_scopes_are_the_union_of_the_routes_scopes() -> None:
    routes = [inbound("a", "/a", scopes=frozenset({"x"})), inbound("b", "/b", scopes=frozenset({"y"}))]
    assert InboundRoutes(routes).scopes == {"x", "y"}


def test_equal_overlaps_of_inbound_routes_are_listed() -> None:
    routes = [
        inbound("a", "/x", "GET", "POST"),
        inbound("b", "/x", "POST", "PUT"),
        inbound("c", "/x", prefix=True),
        inbound("c", "/y"),
    ]
    assert inbound_overlaps(routes) == [Overlap("a", "b", "POST /x"), Overlap("c", "c", "the name")]
    with pytest.raises(ValueError, match="overlap"):
        InboundRoutes(routes)


def test_routes_that_differ_do_not_overlap() -> None:
    assert inbound_overlaps(ROUTES.routes) == []


def test_no_wider_route_covers_anything_below_the_path_of_mcp() -> None:
    """A mount answers there too, and would execute any tool."""
    tools = inbound("tools", "/mcp", "POST", protocol="mcp", operations=Operations({}))
    files = inbound("files", "/mcp/files", "POST", prefix=True)
    routes = InboundRoutes([inbound("all", "/", "POST", prefix=True), tools, files])
    assert [routes.find("POST", path).name for path in ("/mcp", "/mcp/files/x", "/x")] == ["tools", "files", "all"]
    for path in ("/mcp/x", "/mcp/", "/MCP/x", "/mcp/filesx"):
        with pytest.raises(Denied) as refused:
            routes.find("POST", path)
        assert refused.value.reason is Reason.NO_ROUTE


SEGMENTS = st.sampled_from(["tools", "Tools", "crm", "admin", "x", "toolsx", ".well-known", "agent-card.json"])


@given(
    st.lists(st.tuples(st.lists(SEGMENTS, max_size=3), st.booleans(), st.booleans()), max_size=5),
    st.lists(SEGMENTS, min_size=1, max_size=5),
    st.lists(SEGMENTS, max_size=5),
    st.booleans(),
)
def test_segments_behind_those_that_decide_change_no_route(
    places: list[tuple[list[str], bool, bool]], begin: list[str], rest: list[str], slash: bool
) -> None:
    paths = {("/" + "/".join(segments) + "/" * bool(segments and slash), prefix) for segments, slash, prefix in places}
    routes = InboundRoutes(
        [
            inbound(f"r{number}", path.rstrip("/") or "/" if prefix else path, prefix=prefix)
            for number, (path, prefix) in enumerate(
                sorted({(p.rstrip("/") or "/" if is_ else p, is_) for p, is_ in paths})
            )
        ]
    )
    segments = (begin + rest + ["x"] * 6)[: routes.depth + 1 + len(rest)]
    other = [*segments[: routes.depth], "y"]
    found = routes._by_method("/" + "/".join(segments) + "/" * slash)
    assert found is routes._by_method("/" + "/".join(other))
    assert found is routes._by_method("/" + "/".join([*other, *rest]))
