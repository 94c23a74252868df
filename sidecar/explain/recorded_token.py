"""Rebuilds the token of a recorded request from its record. Pure.

Missing facts get values that decide nothing: times that are valid at the record's own time, no bound certificate, no
login pair. Checks that need the real values are not run again (``judgement.py``).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from delegation_core.act import ActChain, Actor
from delegation_core.records.reading import Record
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError
from delegation_core.verify import VerifiedToken

NOT_RECORDED: Final = (
    "A record holds no token: signature, kind, times and key binding are taken from it and cannot be verified again.",
    "Of each actor it holds only the name, and no login pair of the subject; rules that need more are judged without"
    " it.",
)
UNPROVABLE: Final = (
    *NOT_RECORDED,
    "The settings are the current ones. If they changed since the record was written, the judgement may differ.",
)


class CannotJudgeError(ValueError):
    """The record lacks input for a judgement."""


def time_of(record: Record) -> int:
    """Return the record's time in seconds since the epoch.

    Raises:
        CannotJudgeError: the field holds no time.
    """
    try:
        return int(datetime.fromisoformat(record.ts).timestamp())
    except ValueError:
        raise CannotJudgeError("the record's ts is not a time") from None


def spiffe_id(text: str | None, what: str) -> SpiffeId:
    """Return a SPIFFE ID of the record.

    Raises:
        CannotJudgeError: the field holds no SPIFFE ID.
    """
    try:
        return SpiffeId(text or "")
    except SpiffeIdError:
        raise CannotJudgeError(f"the record names no {what}") from None


def token_of(record: Record) -> VerifiedToken:
    """Return the token whose claims the record holds.

    Raises:
        CannotJudgeError: the record holds no token.
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
    """Return the current actor as its issuer maps it: ``actor`` is the mapped name wherever there is one."""
    try:
        return SpiffeId(record.actor or "")
    except SpiffeIdError:
        return None
