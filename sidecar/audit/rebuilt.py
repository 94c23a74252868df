"""The token of a recorded request, as far as its record remembers it. Pure.

What a record does not hold is filled in so that it decides nothing: times that hold at the record's own time, no bound
certificate, no login pair. The checks that would have needed it are not judged again (``judgement.py``).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sidecar.audit.records import Record
from sidecar.delegation.act import ActChain, Actor
from sidecar.delegation.spiffe_id import SpiffeId, SpiffeIdError
from sidecar.delegation.verify import VerifiedToken

UNPROVABLE: Final = (
    "A record holds no token: signature, kind, times and key binding are its word and cannot be proven again.",
    "It holds of each actor the name alone, and not the login pair behind the subject; a rule that looks at more is"
    " judged without it.",
    "The settings are those of now. If they changed since the record was written, so may the judgement.",
)


class CannotJudgeError(ValueError):
    """The record lacks what a judgement needs."""


def time_of(record: Record) -> int:
    """The record's time in seconds since the epoch.

    Raises:
        CannotJudgeError: it is no time.
    """
    try:
        return int(datetime.fromisoformat(record.ts).timestamp())
    except ValueError:
        raise CannotJudgeError("the record's ts is no time") from None


def spiffe_id(text: str | None, what: str) -> SpiffeId:
    """A SPIFFE ID of the record.

    Raises:
        CannotJudgeError: it has none there.
    """
    try:
        return SpiffeId(text or "")
    except SpiffeIdError:
        raise CannotJudgeError(f"the record names no {what}") from None


def token_of(record: Record) -> VerifiedToken:
    """The token whose claims the record holds.

    Raises:
        CannotJudgeError: it holds none.
    """
    if record.subject is None or record.subject_iss is None:
        raise CannotJudgeError("the record holds no token's claims")
    now = time_of(record)
    chain = _chain(record.chain)
    return VerifiedToken(
        raw=record.fp or record.name,
        fingerprint=record.fp or "",
        issuer=record.subject_iss,
        subject=record.subject,
        audience=record.audience or "",
        scope=record.scope or frozenset(),
        expires_at=now + 1,
        jti=record.jti_in,
        client_id=record.client_id,
        txn=record.txn,
        parent_jti=record.parent_jti,
        chain=chain,
        actor_id=None if chain is None else _actor_id(record),
        claims={} if record.scope is None else {"scope": " ".join(sorted(record.scope))},
    )


def _chain(subjects: tuple[str, ...] | None) -> ActChain | None:
    if not subjects:
        return None
    raw: dict[str, object] = {}
    for subject in reversed(subjects):
        raw = {"sub": subject, "act": raw} if raw else {"sub": subject}
    return ActChain(tuple(map(Actor, subjects)), raw)


def _actor_id(record: Record) -> SpiffeId | None:
    """The current actor as its issuer maps it: ``actor`` is the mapped name wherever there is one."""
    try:
        return SpiffeId(record.actor or "")
    except SpiffeIdError:
        return None
