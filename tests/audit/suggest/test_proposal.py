from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_audit.suggest.proposal import Inbound, Peer
from delegation_core.records.reading import Record
from tests.audit.evidence import CRM, FRONT, PLANNER, WRITER
from tests.audit.suggest.observed import MONDAY, TUESDAY, call, claimed, often, on_both_sides, out, suggested

CLAIMED_ALONE: Final = (
    "no evidence but the called side's: neither a delegated token, nor a record of the caller's own sidecar"
)


def inbound(*records: Record) -> list[Inbound]:
    (one,) = suggested(*records)
    return list(one.inbound)


def test_a_route_has_the_methods_and_the_callers_that_were_seen() -> None:
    assert inbound(*often(), *often(method="HEAD")) == [
        Inbound(
            name="customers", path="/customers", prefix=False, methods=("GET", "HEAD"), scopes=("crm.read",),
            scopes_seen=False, calls=6, days=2,
            peers=(Peer(spiffe_id=WRITER, calls=6, days=2, records=("r/1",) * 3, held_back=None),),
            unnamed=0, sources=(), widened_from=0, held_back=None,
        )
    ]  # fmt: skip


def test_no_caller_gets_a_method_that_only_another_one_used() -> None:
    routes = inbound(*often(), *often(method="POST", peer=PLANNER))
    assert [(route.name, route.methods, route.peers[0].spiffe_id, route.scopes) for route in routes] == [
        ("customers-read", ("GET",), WRITER, ("crm.read",)),
        ("customers-write", ("POST",), PLANNER, ("crm.write",)),
    ]


def test_the_scopes_of_records_are_proposed_before_made_up_ones() -> None:
    (route,) = inbound(*often(scope_needed=frozenset({"customers.list"})))
    assert (route.scopes, route.scopes_seen) == (("customers.list",), True)


@pytest.mark.parametrize(
    ("records", "held_back"),
    [
        pytest.param([call(), call(TUESDAY)], "seen 2 times", id="twice"),
        pytest.param([call()] * 9, "seen on one day", id="one-day"),
        pytest.param([*[call()] * 3, *[call(peer=PLANNER)] * 3], "seen on one day", id="two-callers-on-one-day"),
        pytest.param([claimed(), *[claimed(TUESDAY)] * 5], CLAIMED_ALONE, id="only-the-called-side"),
        pytest.param([call(peer=None)] * 9, "no proven caller", id="nobody"),
        pytest.param(
            [call(), call(TUESDAY), call(peer=PLANNER)], "no caller was seen often enough", id="nobody-often-enough"
        ),
    ],
)
def test_what_rests_on_too_little_is_held_back(records: list[Record], held_back: str) -> None:
    (route,) = inbound(*records)
    assert route.held_back == held_back
    assert [route.held_back for route in inbound(*often())] == [None]


@pytest.mark.parametrize(
    ("stranger", "held_back"),
    [
        pytest.param([call(TUESDAY, peer=PLANNER)] * 2, "seen 2 times", id="twice"),
        pytest.param([call(TUESDAY, peer=PLANNER)] * 9, "seen on one day", id="on-one-day"),
    ],
)
def test_a_caller_that_was_hardly_seen_is_held_back_on_the_route_of_another(
    stranger: list[Record], held_back: str
) -> None:
    (route,) = inbound(*often(), *stranger)
    assert {peer.spiffe_id: peer.held_back for peer in route.peers} == {PLANNER: held_back, WRITER: None}
    assert route.held_back is None


def test_a_second_caller_that_was_hardly_seen_does_not_make_one_day_enough() -> None:
    (route,) = inbound(*[call()] * 3, call(peer=PLANNER))
    held_back = {PLANNER: "seen 1 time", WRITER: "seen on one day"}
    assert {peer.spiffe_id: peer.held_back for peer in route.peers} == held_back
    assert route.held_back == "no caller was seen often enough"


def test_calls_without_a_proven_caller_are_counted_and_give_nobody_a_right() -> None:
    (route,) = inbound(*often(), *[call(peer=None, source="10.0.0.7")] * 4, call(peer=None, source="# 10.0.0.8"))
    assert ([peer.spiffe_id for peer in route.peers], route.unnamed, route.calls) == ([WRITER], 5, 8)
    assert route.sources == ("10.0.0.7",)


def test_a_path_is_widened_only_where_several_ids_were_seen() -> None:
    (one,) = inbound(*often(path="/customers/42"))
    assert (one.path, one.prefix, one.widened_from) == ("/customers/42", False, 0)
    (several,) = inbound(call(path="/customers/1"), call(path="/customers/2"), call(TUESDAY, path="/customers/2/x"))
    assert (several.path, several.prefix, several.widened_from) == ("/customers", True, 3)
    assert several.held_back is None


def test_an_id_that_may_be_a_secret_is_never_written_and_opens_nothing_alone() -> None:
    secret, other = "aB3xyzXYZ0123456789abcdef", "cD4xyzXYZ0123456789abcdef"
    (route,) = inbound(*often(path=f"/reset/{secret}"))
    assert (route.path, route.prefix, route.widened_from) == ("/reset", True, 1)
    assert route.held_back is not None
    assert route.held_back.startswith("one path, with an id that may be a secret")
    assert secret not in repr(route)
    (route,) = inbound(*often(path=f"/reset/{secret}"), *often(path=f"/reset/{other}"))
    assert (route.path, route.prefix, route.widened_from, route.held_back) == ("/reset", True, 2, None)


REPORTS: Final = often(path="/reports/42")


@pytest.mark.parametrize(
    ("stranger", "opened"),
    [
        pytest.param([claimed(peer=PLANNER, path="/reports/43")], {}, id="claimed once"),
        pytest.param([claimed(day, peer=PLANNER, path=f"/reports/{n}") for day in (MONDAY, TUESDAY) for n in range(9)],
                     {}, id="claimed often"),
        pytest.param([claimed(peer=None, path="/reports/43")] * 9, {}, id="no proven caller"),
        pytest.param([call(peer=PLANNER, path="/reports/43")], {}, id="accepted once"),
        pytest.param([claimed(path="/reports/43")] * 9, {}, id="claimed in the caller's own name"),
        pytest.param(often(peer=PLANNER, path="/reports/43"), {("/reports/43", False): [PLANNER]}, id="accepted"),
        pytest.param(
            [*often(peer=PLANNER, path="/reports/43"), *often(peer=PLANNER, path="/reports/44")],
            {("/reports", True): [PLANNER]}, id="accepted at two paths",
        ),
        pytest.param(
            [*often(peer=PLANNER, path="/reports/43"), *often(peer=PLANNER, path="/reports/42")],
            {("/reports", True): [PLANNER], ("/reports/42", False): [PLANNER, WRITER]}, id="accepted at this path too",
        ),
    ],
)  # fmt: skip
def test_the_calls_of_one_caller_widen_no_route_of_another(
    stranger: list[Record], opened: dict[tuple[str, bool], list[str]]
) -> None:
    routes = [route for route in inbound(*REPORTS, *stranger) if route.held_back is None]
    found = {(one.path, one.prefix): [who.spiffe_id for who in one.peers if who.held_back is None] for one in routes}
    assert found == {("/reports/42", False): [WRITER]} | opened


def test_a_call_that_its_caller_recorded_too_is_accepted() -> None:
    both = [one for n, day in enumerate((MONDAY, TUESDAY, TUESDAY)) for one in on_both_sides(day, f"c{n}")]
    for order in (both, both[::-1]):
        (route,) = next(one for one in suggested(*order) if one.workload == CRM).inbound
        assert (route.held_back, [peer.spiffe_id for peer in route.peers]) == (None, [WRITER])


ADMIN: Final[dict[str, Any]] = {"peer": PLANNER, "method": "POST", "path": "/admin/export"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"call_out": "another"}, id="another call"),
        pytest.param({"call_out": None}, id="no call id"),
        pytest.param({"workload": FRONT}, id="another caller"),
        pytest.param({"peer": WRITER}, id="another next hop"),
        pytest.param({"method": "GET"}, id="another method"),
        pytest.param({"path": "/crm/customers"}, id="another path"),
        pytest.param({"path": "/a/crm/admin/export"}, id="more than a prefix before it"),
        pytest.param({"decision": "deny"}, id="refused by the caller's sidecar"),
    ],
)
def test_the_caller_s_record_counts_for_no_other_call(change: dict[str, Any]) -> None:
    records = [one for n, day in enumerate((MONDAY, TUESDAY) * 3) for one in on_both_sides(day, f"c{n}", **ADMIN)]
    opened = next(one for one in suggested(*records) if one.workload == CRM).inbound[0]
    assert (opened.held_back, opened.path) == (None, "/admin/export")
    changed = [replace(one, **change) if one.direction == "outbound" else one for one in records]
    (route,) = next(one for one in suggested(*changed) if one.workload == CRM).inbound
    assert (route.held_back, route.calls, route.peers[0].spiffe_id) == (CLAIMED_ALONE, 6, PLANNER)


def test_one_call_id_counts_once() -> None:
    once = on_both_sides(TUESDAY, "c1", **ADMIN)
    (route,) = next(one for one in suggested(*once * 9) if one.workload == CRM).inbound
    assert route.held_back == "seen 1 time, and 9 calls recorded"


def test_a_path_that_begins_with_an_id_opens_nothing() -> None:
    (route,) = inbound(*often(path="/1"), *often(path="/2"))
    assert (route.path, route.held_back) == ("/", "an id comes first in the path, so this would open every path")


def test_a_path_that_another_route_hides_is_held_back() -> None:
    routes = inbound(*often(path="/c/1"), *often(path="/c/2"), *often(path="/C/1"))
    assert {route.path: route.held_back for route in routes} == {
        "/C/1": None, "/c": "paths that differ only in case or a last slash",
    }  # fmt: skip


def test_names_are_unique_and_never_reserved() -> None:
    routes = inbound(*often(path="/"), *often(path="/none"), *often(path="/A/b"), *often(path="/a-b"))
    assert [route.name for route in routes] == ["root", "a-b", "a-b-2", "none-2"]


def test_an_outbound_route_asks_for_the_scopes_that_its_target_is_to_need() -> None:
    asks = [out(MONDAY), out(TUESDAY), out(TUESDAY, method="POST")]
    (alone,) = suggested(*asks)
    (route,) = alone.outbound
    assert (route.name, route.peer, route.scopes, route.held_back) == ("crm", CRM, ("crm.read", "crm.write"), None)

    (told,) = next(one for one in suggested(*asks, *often(scope_needed=frozenset({"x"}))) if one.outbound).outbound
    assert (told.scopes, told.scopes_seen) == (("x",), True)


def hop(caller: str, callee: str, **changes: Any) -> list[Record]:
    """Return what both sides recorded of calls from one workload to another."""
    return [
        *often(workload=callee, peer=caller, **changes),
        *often(direction="outbound", workload=caller, peer=callee, route="next", **changes),
    ]


def scopes_of(workload: str, *records: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the scopes of a workload's only outbound route: for the call, and for what follows it."""
    ((route,),) = (one.outbound for one in suggested(*records) if one.workload == workload)
    return route.scopes, route.scopes_onward


def test_an_outbound_route_asks_for_the_scopes_of_the_calls_that_follow_too() -> None:
    chain = [*hop(PLANNER, WRITER), *hop(WRITER, CRM, method="POST"), *hop(CRM, FRONT, path="/tell")]
    assert scopes_of(PLANNER, *chain) == (("writer.read",), ("crm.write", "front.read"))
    assert scopes_of(WRITER, *chain) == (("crm.write",), ("front.read",))
    assert scopes_of(CRM, *chain) == (("front.read",), ())


@pytest.mark.parametrize(
    "once",
    [
        pytest.param([call(path="/tenants", scope_needed=frozenset({"crm.admin"}))], id="the route is held back"),
        pytest.param(
            [
                call(path="/tenants", scope_needed=frozenset({"crm.admin"})),
                *often(path="/tenants", scope_needed=frozenset({"crm.admin"}), peer=PLANNER),
            ],
            id="the caller is held back",
        ),
    ],
)
def test_a_scope_that_only_held_back_calls_need_is_not_asked_for(once: list[Record]) -> None:
    def asked(*records: Record) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
        ((route,),) = (one.outbound for one in suggested(*records) if one.workload == WRITER)
        return route.scopes, route.scopes_held_back, route.held_back

    assert asked(*hop(WRITER, CRM)) == (("crm.read",), (), None)
    assert asked(*hop(WRITER, CRM), *once) == (("crm.read",), ("crm.admin",), None)
    assert asked(*hop(WRITER, CRM), *hop(CRM, FRONT, scope_needed=frozenset({"crm.admin"})), *once)[1] == ()
    all_held_back = "each of its calls is held back at the peer"
    assert asked(*hop(WRITER, CRM)[3:], *once) == (("crm.admin",), (), all_held_back)


def test_calls_in_a_circle_need_each_scope_once() -> None:
    circle = [*hop(PLANNER, WRITER), *hop(WRITER, CRM), *hop(CRM, PLANNER)]
    assert scopes_of(PLANNER, *circle) == (("writer.read",), ("crm.read", "planner.read"))


def test_a_call_that_is_held_back_needs_no_scope_before_it() -> None:
    once = [call(workload=CRM, peer=WRITER), out(route="next")]
    assert scopes_of(PLANNER, *hop(PLANNER, WRITER), *once) == (("writer.read",), ())


def test_a_scope_is_of_the_records_only_if_one_of_them_names_it() -> None:
    def seen(*records: Record) -> bool:
        ((route,),) = (one.outbound for one in suggested(*records) if one.workload == WRITER)
        return route.scopes_seen

    assert not seen(*hop(WRITER, CRM))
    assert seen(*hop(WRITER, CRM, scope_needed=frozenset({"crm.read"})))


@pytest.mark.parametrize(
    ("records", "held_back"),
    [
        pytest.param([out(), out(TUESDAY)], "seen 2 times", id="twice"),
        pytest.param([out()] * 3, "seen on one day", id="one-day"),
    ],
)
def test_an_outbound_route_that_was_hardly_used_is_held_back(records: list[Record], held_back: str) -> None:
    (one,) = suggested(*records)
    assert ([route.held_back for route in one.outbound], one.complete) == ([held_back], False)


@pytest.mark.parametrize("name", ["", "none", "a b", "x\ny", "x" * 99])
def test_a_name_that_no_route_may_have_is_replaced(name: str) -> None:
    (one,) = suggested(*(out(day, route=name) for day in (MONDAY, TUESDAY, TUESDAY)))
    assert [route.name for route in one.outbound] == ["none-2" if name == "none" else "crm"]


def test_a_suggestion_is_complete_if_nothing_is_held_back() -> None:
    def complete(*records: Any) -> bool:
        return all(one.complete for one in suggested(*records))

    assert complete(*often())
    assert not complete(*often(), call(path="/once"))
    assert not complete(*often(), call(peer=PLANNER))
    assert not complete(*often(), call(peer=None))
