from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.revocation import Kind
from sidecar.sts.logout_events import BACK_CHANNEL_LOGOUT, SESSION_REVOKED, LogoutFeed, issuer_of, order_of
from sidecar.sts.orders import Order
from tests.fakes.sts import LOGIN, trusted
from tests.fakes.tokens import NOW, TokenMint

MINT: Final = TokenMint(LOGIN, algorithm="RS256", kid="l1")
FEED: Final = LogoutFeed(trusted=trusted(LOGIN), audiences=frozenset({"front-app", "https://sts.acme.example"}))
ABSENT: Final = object()


def logout(typ: object = "logout+jwt", mint: TokenMint = MINT, **changes: object) -> str:
    """Return Keycloak's logout token for a session of alice, with these claims changed."""
    claims: dict[str, object] = {
        "iss": LOGIN,
        "aud": "front-app",
        "iat": NOW,
        "exp": NOW + 120,
        "jti": "event-1",
        "sub": "alice",
        "sid": "session-1",
        "events": {BACK_CHANNEL_LOGOUT: {}},
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not ABSENT}
    return mint.mint(kept, MINT.header(typ=typ))


def revoked(**changes: Any) -> str:
    """Return a CAEP event, with these claims changed."""
    subject = {"format": "iss_sub", "iss": LOGIN, "sub": "alice"}
    lawful: dict[str, Any] = {
        "aud": ["https://sts.acme.example"],
        "sub": ABSENT,
        "sid": ABSENT,
        "exp": ABSENT,
        "sub_id": {"format": "complex", "user": subject, "session": {"format": "opaque", "id": "session-1"}},
        "events": {SESSION_REVOKED: {"event_timestamp": NOW}},
    }
    return logout("secevent+jwt", **{**lawful, **changes})


def read(raw: str, feed: LogoutFeed = FEED, *, now: int = NOW) -> Order:
    bearer = issuer_of(raw)
    key = MINT.keys.find("l1")
    assert key is not None
    return order_of(bearer, feed=feed, key=key, now=now)


USER: Final = {"format": "iss_sub", "iss": LOGIN, "sub": "alice"}


@pytest.mark.parametrize(
    ("raw", "kind", "value", "for_s"),
    [
        pytest.param(logout(), Kind.LOGIN, "session-1", 86_400, id="a logout of a session"),
        pytest.param(logout(typ="JWT"), Kind.LOGIN, "session-1", 86_400, id="as Keycloak types it"),
        pytest.param(logout(sub=ABSENT), Kind.LOGIN, "session-1", 86_400, id="of a session of nobody in particular"),
        pytest.param(logout(sid=ABSENT), Kind.SUBJECT, "alice", 3600, id="of all sessions of a user"),
        pytest.param(revoked(), Kind.LOGIN, "session-1", 86_400, id="CAEP: a session"),
        pytest.param(revoked(sub_id=USER), Kind.SUBJECT, "alice", 3600, id="CAEP: a user"),
        pytest.param(
            revoked(sub_id=ABSENT, events={SESSION_REVOKED: {"subject": USER}}),
            Kind.SUBJECT,
            "alice",
            3600,
            id="CAEP: as drafts had it",
        ),
    ],
)
def test_an_event_stops_the_login_that_it_names_or_else_the_user(raw: str, kind: Kind, value: str, for_s: int) -> None:
    order = read(raw)
    assert (order.kind, order.value, order.issuer, order.operator) == (kind, value, LOGIN, LOGIN)
    assert (len(order.id), order.needs_second) == (len("event:") + 64, False)
    assert NOW + for_s <= order.expires_at < NOW + for_s + for_s // 16
    assert read(raw, now=NOW + 1).expires_at == order.expires_at, "few ends for one name"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(logout(mint=TokenMint(LOGIN, algorithm="RS256", kid="l1", key=7)), id="another key"),
        pytest.param(logout(aud="other-app"), id="for another application"),
        pytest.param(logout(aud=ABSENT), id="for nobody"),
        pytest.param(logout(typ="at+jwt"), id="an access token"),
        pytest.param(logout(nonce="n"), id="an ID token"),
        pytest.param(logout(events=ABSENT), id="no event"),
        pytest.param(logout(events={"https://other.example": {}}), id="another event"),
        pytest.param(logout(events={BACK_CHANNEL_LOGOUT: True}), id="an event that is no object"),
        pytest.param(logout(events={BACK_CHANNEL_LOGOUT: {}, SESSION_REVOKED: {}}), id="two events"),
        pytest.param(logout(iat=NOW - 301), id="an old one"),
        pytest.param(logout(iat=NOW + 61), id="one of the future"),
        pytest.param(logout(exp=NOW - 60), id="an expired one"),
        pytest.param(logout(exp="soon"), id="an end that is no time"),
        pytest.param(logout(iat=ABSENT), id="of no time"),
        pytest.param(logout(jti=ABSENT), id="of no name"),
        pytest.param(logout(sub=ABSENT, sid=ABSENT), id="of nobody"),
        pytest.param(logout(sid=7), id="a session that is a number"),
        pytest.param(revoked(sub_id={**USER, "iss": "https://other.example"}), id="a user of another issuer"),
        pytest.param(logout("JWT", events={SESSION_REVOKED: {}}), id="CAEP without its type"),
        pytest.param("x", id="no token"),
    ],
)
def test_an_event_with_one_fact_changed_is_refused(raw: str) -> None:
    with pytest.raises(Denied) as refused:
        read(raw)
    assert refused.value.reason is Reason.ORDER_REFUSED


def test_the_claims_of_the_event_alone_decide() -> None:
    changes: dict[str, Any] = {"reason": "x", "kind": "actor", "value": "spiffe://acme.example/agent/planner"}
    assert read(logout(**changes)).kind is Kind.LOGIN


@pytest.mark.parametrize("raw", [logout(sid=ABSENT), revoked(sub_id=USER)], ids=["logout", "CAEP"])
def test_an_event_for_a_sub_is_refused_where_tokens_name_users_by_another_claim(raw: str) -> None:
    profile = replace(FEED.trusted.profile, subject_claim="preferred_username")
    feed = replace(FEED, trusted=replace(FEED.trusted, profile=profile))
    assert (read(raw).kind, read(logout(), feed).kind) == (Kind.SUBJECT, Kind.LOGIN)
    with pytest.raises(Denied, match="users here are named by preferred_username") as refused:
        read(raw, feed)
    assert refused.value.reason is Reason.ORDER_REFUSED
