"""Logout events of user issuers, and what they revoke: OpenID Connect back-channel logout, and CAEP session-revoked.

Both are signed JWTs with an ``events`` claim (RFC 8417), verified with the issuer's own keys, for our own audience.
Pure: key and time are arguments. An event that names a session stops that login; one that names only a user stops the
user, because tokens cannot tell logins before the event from those after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from delegation_core.bearer import Bearer, parse_bearer
from delegation_core.claims import is_name
from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey
from delegation_core.profile import TrustedIssuer
from delegation_core.revocation import Kind
from delegation_core.revocation_list import SKEW_S
from delegation_core.signature import verify_signature
from sidecar.sts.orders import Action, Order

BACK_CHANNEL_LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"
SESSION_REVOKED: Final = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
MAX_AGE_S: Final = 300  # from the event's signature to its arrival

_LEAST_STEP_S: Final = 60
_TYPES: Final = {
    BACK_CHANNEL_LOGOUT: frozenset({"logout+jwt", "jwt", None}),
    SESSION_REVOKED: frozenset({"secevent+jwt"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutFeed:
    """The events of one user issuer: their ``audiences``, and the lives of revocations of a login and of a user."""

    trusted: TrustedIssuer
    audiences: frozenset[str]
    login_for_s: int = 86_400
    subject_for_s: int = 3600


def issuer_of(raw: str) -> Bearer:
    """Parse an event without verifying it. Raises Denied ORDER_REFUSED."""
    try:
        return parse_bearer(raw)
    except Denied as error:
        raise Denied(Reason.ORDER_REFUSED, str(error)) from error


def order_of(bearer: Bearer, *, feed: LogoutFeed, key: VerificationKey, now: int) -> Order:
    """Verify an event and return its revocation, with an ID from issuer and ``jti``, so that a replay changes nothing.

    Raises:
        Denied: ORDER_REFUSED.
    """
    try:
        verify_signature(bearer, key, feed.trusted.profile.algorithms)
    except Denied as error:
        raise Denied(Reason.ORDER_REFUSED, str(error)) from error
    claims = bearer.claims
    event, members = _event(claims)
    if bearer.typ not in _TYPES[event] or "nonce" in claims:
        raise Denied(Reason.ORDER_REFUSED, "the event's header or claims are those of another token")
    audiences = claims.get("aud")
    listed = [audiences] if isinstance(audiences, str) else audiences if isinstance(audiences, list) else []
    if feed.audiences.isdisjoint(one for one in listed if isinstance(one, str)):
        raise Denied(Reason.ORDER_REFUSED, "the event is for another audience")
    made_at, jti = claims.get("iat"), claims.get("jti")
    if isinstance(made_at, bool) or not isinstance(made_at, int) or not is_name(jti):
        raise Denied(Reason.ORDER_REFUSED, "the event has no iat or no jti")
    ends_at = claims.get("exp", now)
    if isinstance(ends_at, bool) or not isinstance(ends_at, int | float):
        raise Denied(Reason.ORDER_REFUSED, "exp is not a time")
    if ends_at + SKEW_S <= now or not now - MAX_AGE_S <= made_at <= now + SKEW_S:
        raise Denied(Reason.ORDER_REFUSED, "the event was signed too long ago, or in the future")
    subject, session = _named(claims, members, feed.trusted.issuer)
    kind, value, for_s = (
        (Kind.LOGIN, session, feed.login_for_s) if session is not None else (Kind.SUBJECT, subject, feed.subject_for_s)
    )
    if value is None:
        raise Denied(Reason.ORDER_REFUSED, "the event names neither a session nor a user")
    claim = feed.trusted.profile.subject_claim
    if kind is Kind.SUBJECT and claim != "sub":  # an order for this name would match no token, and look as if it did
        raise Denied(
            Reason.ORDER_REFUSED,
            f"the event names no session, and names the user by sub, but users here are named by {claim}",
        )
    return Order(
        id=f"event:{sha256(f'{feed.trusted.issuer} {jti}'.encode()).hexdigest()}",  # a jti may be as long as a name
        action=Action.REVOKE,
        operator=feed.trusted.issuer,
        made_at=made_at,
        expires_at=_round_up(now + for_s, for_s),
        reason=event,
        kind=kind,
        value=value,
        issuer=feed.trusted.issuer,
        alone=True,
    )


def _round_up(ends_at: int, for_s: int) -> int:
    """Round an end up, by at most a sixteenth of ``for_s``, so that many events for one name have few ends."""
    step = max(_LEAST_STEP_S, for_s // 16)
    return -(-ends_at // step) * step


def _event(claims: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """Return the type and the members of the one supported event."""
    events = claims.get("events")
    found = [] if not isinstance(events, dict) else [(name, events[name]) for name in _TYPES if name in events]
    if len(found) != 1 or not isinstance(found[0][1], dict):
        raise Denied(Reason.ORDER_REFUSED, "the token holds no logout event, or several")
    return found[0]


def _named(claims: Mapping[str, object], members: Mapping[str, object], issuer: str) -> tuple[str | None, str | None]:
    """Return the user and the session of an event, by ``sub`` and ``sid``, ``sub_id`` (RFC 9493) or ``subject``."""
    subject, session = _name(claims, "sub"), _name(claims, "sid")
    sub_id = claims.get("sub_id", members.get("subject"))
    if isinstance(sub_id, dict):
        parts = [sub_id, *(part for part in sub_id.values() if isinstance(part, dict))]  # complex subjects: one level
        for part in parts:
            if part.get("format") == "iss_sub" and part.get("iss") == issuer:
                subject = subject or _name(part, "sub")
            if part.get("format") == "opaque" and part is sub_id.get("session"):
                session = session or _name(part, "id")
    return subject, session


def _name(claims: Mapping[str, object], member: str) -> str | None:
    value = claims.get(member)
    if value is None:
        return None
    if not is_name(value):
        raise Denied(Reason.ORDER_REFUSED, f"{member} is not a plain string")
    return value
