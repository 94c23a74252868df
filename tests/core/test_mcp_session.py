"""Ids of MCP sessions: each stands for one session of one holder, and nothing else is an id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.mcp_session import Holder, Session, SessionIds
from tests.core.world import CRM, PLANNER

IDS = SessionIds(bytes(32))
ALICE = Holder("subject", PLANNER, "https://sts", "alice")
ID = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)


def find(route: str, holder: Holder, shown: str, ids: SessionIds = IDS) -> Session | Reason:
    try:
        return ids.find(route, (holder,), shown)
    except Denied as denied:
        return denied.reason


@given(ID)
def test_an_id_leads_its_holder_to_the_agents(agents: str) -> None:
    shown = IDS.give("tools", Session(ALICE, agents))
    assert find("tools", ALICE, shown) == Session(ALICE, agents)


@given(st.text(max_size=100))
def test_no_other_text_is_an_id(text: str) -> None:
    assert find("tools", ALICE, text) is Reason.SESSION_UNKNOWN


@pytest.mark.parametrize(
    ("route", "holder", "key"),
    [
        pytest.param("tool", ALICE, bytes(32), id="route"),
        pytest.param("tools", ALICE._replace(kind="actor"), bytes(32), id="kind"),
        pytest.param("tools", ALICE._replace(peer=CRM), bytes(32), id="peer"),
        pytest.param("tools", ALICE._replace(issuer="https://st", subject="salice"), bytes(32), id="where-one-ends"),
        pytest.param("tools", ALICE._replace(subject="bob"), bytes(32), id="subject"),
        pytest.param("tools", ALICE._replace(issuer="https://other"), bytes(32), id="issuer"),
        pytest.param("tools", ALICE, bytes(31) + b"1", id="key"),
    ],
)
def test_an_id_is_of_one_holder_route_and_run(route: str, holder: Holder, key: bytes) -> None:
    shown = IDS.give("tools", Session(ALICE, "1"))
    assert find("tools", ALICE, shown) == Session(ALICE, "1")
    assert find(route, holder, shown, SessionIds(key)) is Reason.SESSION_UNKNOWN


@pytest.mark.parametrize("agents", ["", " ", "a b", "\xe9", "x" * 1025, "a\r\nb"])
def test_an_agents_id_is_visible_text(agents: str) -> None:
    with pytest.raises(Denied) as denied:
        IDS.give("tools", Session(ALICE, agents))
    assert denied.value.reason is Reason.UPSTREAM_BAD_RESPONSE


def test_a_session_passes_nine_sidecars_with_an_id_of_any_length() -> None:
    sidecars = [SessionIds(bytes([number]) * 32) for number in range(10)]
    for length in (1, 991, 992, 1024):
        shown = "x" * length
        for ids in sidecars[:9]:
            shown = ids.give("tools", Session(ALICE, shown))
        assert len(shown) == length + 9 * 33
        if length > 991:
            with pytest.raises(Denied):
                sidecars[9].give("tools", Session(ALICE, shown))
        for ids in reversed(sidecars[:9]):
            assert find("tools", ALICE, shown[:-1] + "y", ids) is Reason.SESSION_UNKNOWN
            session = find("tools", ALICE, shown, ids)
            assert isinstance(session, Session)
            shown = session.id
        assert shown == "x" * length


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        SessionIds(bytes(31))


@pytest.mark.parametrize(
    ("route", "session", "tail"),
    [
        pytest.param("tool", Session(ALICE, "s"), b"", id="route"),
        pytest.param("tools", Session(ALICE._replace(subject="bob"), "s"), b"", id="holder"),
        pytest.param("tools", Session(ALICE, "t"), b"", id="session"),
        pytest.param("tools", Session(ALICE, "s"), b"1", id="another-event"),
    ],
)
def test_an_event_id_is_of_one_session(route: str, session: Session, tail: bytes) -> None:
    shown = IDS.give_event("tools", Session(ALICE, "s"), b"7")
    assert IDS.find_event("tools", Session(ALICE, "s"), shown) == b"7"
    with pytest.raises(Denied) as refused:
        IDS.find_event(route, session, shown + tail)
    assert refused.value.reason is Reason.SESSION_UNKNOWN


@pytest.mark.parametrize("shown", [b"", b"7", b".", b"." * 100])
def test_no_other_bytes_are_an_event_id(shown: bytes) -> None:
    with pytest.raises(Denied) as refused:
        IDS.find_event("tools", Session(ALICE, "s"), shown)
    assert refused.value.reason is Reason.SESSION_UNKNOWN
