"""The signed list of revocations that sidecars fetch from token services: writer and parser. Pure.

A list is a JWS of its issuer: a sequence number that never decreases, the revocations in force, those lifted early, and
the times when its replica last heard from each other replica. It may have 8 MiB, so it is processed in steps. A reader
that already has the list gets a confirmation: a short JWS with the list's entity tag and the replica's times.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import orjson

from delegation_core.claims import is_name
from delegation_core.errors import Denied
from delegation_core.json_steps import object_in_steps
from delegation_core.jws import CompactJws, decode_part, encode_part, parse_compact, parse_json_part
from delegation_core.keyset import VerificationKey
from delegation_core.revocation import NAMED_BY_ISSUER, Kind
from delegation_core.revocations_kept import (
    MAX_LISTED,
    MAX_SEQ,
    Knowledge,
    Listed,
    Revocation,
    Revocations,
    RevocationsError,
)
from delegation_core.signature import verify_signature
from delegation_core.steps import Steps, drained, slices
from delegation_core.strict_json import StrictJsonError

TYP: Final = "revocations+jwt"  # no verifier of access tokens accepts it
UNCHANGED_TYP: Final = "revocations-unchanged+jwt"
UNCHANGED_FIELD: Final = "Revocations-Unchanged"  # header field of a 304 answer
MAX_PEERS: Final = 256  # of a replica
MAX_LIST_BYTES: Final = 8 * 1024 * 1024
SKEW_S: Final = 60

_DECODED_AT_ONCE: Final = 65_536  # characters; a multiple of four, so that parts decode independently
_KINDS: Final = {str(kind): kind for kind in Kind}
_MEMBERS: Final = frozenset({"id", "kind", "value", "exp"})
_MEMBERS_OF_ISSUER: Final = _MEMBERS | {"iss"}
_EMPTY: Final = "e30"  # {}


class Said(NamedTuple):
    """The time-independent part of a list, as JSON: the revocations in force, and those lifted."""

    revoked: bytes
    lifted: bytes


def said_by(revocations: Revocations) -> Steps[Said]:
    """Serialize the rows of a list, in steps, sorted by id."""
    revoked: list[bytes] = []
    lifted: list[bytes] = []
    for some in slices(sorted(revocations.in_force)):
        yield
        revoked += (orjson.dumps(_row(revocations.in_force[name])) for name in some)
    for some in slices(sorted(revocations.lifted)):
        yield
        lifted += (orjson.dumps({"id": name, "exp": revocations.lifted[name]}) for name in some)
    return Said(b"[%b]" % b",".join(revoked), b"[%b]" % b",".join(lifted))


def claims_of(
    revocations: Revocations, said: Said, *, issuer: str, issued_at: int, heard: Sequence[int] = ()
) -> dict[str, object]:
    """Return the claims of a list. ``heard``: times of the replica's last contact with each peer."""
    return {
        "iss": issuer,
        "iat": issued_at,
        "exp": issued_at + revocations.ttl_s,
        "ttl": revocations.ttl_s,
        "seq": revocations.seq,
        "heard": heard,
        "revoked": orjson.Fragment(said.revoked),
        "lifted": orjson.Fragment(said.lifted),
    }


def unchanged_claims(*, issuer: str, tag: str, issued_at: int, heard: Sequence[int]) -> dict[str, object]:
    """Return the claims of the confirmation that the list with the entity tag ``tag`` is current."""
    return {"iss": issuer, "iat": issued_at, "tag": tag, "heard": heard}


def sign_list(
    claims: Mapping[str, object], *, alg: str, kid: str, sign: Callable[[bytes], bytes], typ: str = TYP
) -> bytes:
    """Return the list as a compact JWS. ``sign`` maps the signing input to a JWS signature (RFC 7518 section 3)."""
    header = orjson.dumps({"alg": alg, "kid": kid, "typ": typ})
    signing_input = encode_part(header) + b"." + encode_part(orjson.dumps(claims))
    return signing_input + b"." + encode_part(sign(signing_input))


def parse_list(raw: bytes) -> Steps[CompactJws]:
    """Parse the JWS of a list, in steps, without verifying it.

    Raises:
        RevocationsError: the list is too large, malformed, or of another ``typ``.
    """
    if len(raw) > MAX_LIST_BYTES:
        raise RevocationsError("it is too large")
    parts = raw.decode("ascii", "replace").split(".")
    if len(parts) != 3:
        raise RevocationsError("it does not have three parts")
    header, payload, signature = parts
    decoded: list[bytes] = []
    try:
        jws = parse_compact(f"{header}.{_EMPTY}.{signature}")
        for start in range(0, len(payload), _DECODED_AT_ONCE):
            yield
            decoded.append(decode_part(payload[start : start + _DECODED_AT_ONCE]))
    except Denied as error:
        raise RevocationsError(str(error)) from error
    if jws.typ != TYP:
        raise RevocationsError(f"its typ is not {TYP}")
    return replace(jws, payload=b"".join(decoded), signing_input=raw[: raw.rindex(b".")])


def verify_list(
    jws: CompactJws, *, issuer: str, key: VerificationKey, algorithms: Container[str], now: int
) -> Steps[Listed]:
    """Verify the signature and claims of a list of ``issuer``, in steps.

    Raises:
        RevocationsError: a wrong signature, invalid claims, or a list that has expired or is from the future.
    """
    try:
        verify_signature(jws, key, algorithms)
        yield
        claims = yield from object_in_steps(jws.payload, max_bytes=MAX_LIST_BYTES, max_depth=4)
        found = yield from _read(claims, issuer)
    except (Denied, StrictJsonError) as error:
        raise RevocationsError(str(error)) from error
    _require_past(found.issued_at, now)
    if found.issued_at + found.ttl_s <= now - SKEW_S:
        raise RevocationsError("it has expired")
    return found


def parse_unchanged(raw: str) -> CompactJws:
    """Parse a confirmation, without verifying it.

    Raises:
        RevocationsError: the confirmation is malformed, or of another ``typ``.
    """
    try:
        jws = parse_compact(raw)
    except Denied as error:
        raise RevocationsError(str(error)) from error
    if jws.typ != UNCHANGED_TYP:
        raise RevocationsError(f"the confirmation's typ is not {UNCHANGED_TYP}")
    return jws


def verify_unchanged(
    jws: CompactJws, *, issuer: str, tag: str, key: VerificationKey, algorithms: Container[str], now: int
) -> Knowledge:
    """Verify that ``issuer`` confirms the list with the entity tag ``tag``; return its replica's knowledge.

    Raises:
        RevocationsError: a wrong signature, invalid claims, another list, or a time in the future.
    """
    try:
        verify_signature(jws, key, algorithms)
        claims = parse_json_part(jws.payload, max_depth=2)
        issued_at = _number(claims, "iat")
        heard = _heard(claims, issued_at)
    except (Denied, StrictJsonError) as error:
        raise RevocationsError(str(error)) from error
    if claims.get("iss") != issuer or claims.get("tag") != tag:
        raise RevocationsError("the confirmation is for another list")
    _require_past(issued_at, now)
    return Knowledge(issued_at=issued_at, heard=heard)


def _require_past(issued_at: int, now: int) -> None:
    if issued_at > now + SKEW_S:
        raise RevocationsError("it is from the future")


def _read(claims: Mapping[str, object], issuer: str) -> Steps[Listed]:
    if claims.get("iss") != issuer:
        raise StrictJsonError("iss is another issuer")
    revoked, lifted = (_rows(claims, name) for name in ("revoked", "lifted"))
    issued_at, ttl_s = _number(claims, "iat"), _number(claims, "ttl")
    if _number(claims, "exp") != issued_at + ttl_s:
        raise StrictJsonError("exp is not the sum of iat and ttl")
    found: dict[str, Revocation] = {}
    ends: dict[str, int] = {}
    total = len(revoked), len(lifted)
    for some in drained(revoked):
        found.update((one.id, one) for one in map(_revocation, some))
        yield
    for some in drained(lifted):
        ends.update(map(_lift, some))
        yield
    if (len(found), len(ends)) != total:
        raise StrictJsonError("an id is listed twice")
    heard = _heard(claims, issued_at)
    return Listed(seq=_number(claims, "seq"), issued_at=issued_at, ttl_s=ttl_s, heard=heard, revoked=found, lifted=ends)


def _heard(claims: Mapping[str, object], issued_at: int) -> tuple[int, ...]:
    """Return the times when the replica last heard from each peer; empty for lists of earlier versions."""
    times = claims.get("heard", [])
    if not isinstance(times, list) or len(times) > MAX_PEERS:
        raise StrictJsonError(f"heard is not a list of at most {MAX_PEERS}")
    if not all(isinstance(time, int) and not isinstance(time, bool) and 0 <= time <= issued_at for time in times):
        raise StrictJsonError("a value of heard is not a time, or is after iat")
    return tuple(times)


def _revocation(row: object) -> Revocation:
    if not isinstance(row, dict):
        raise StrictJsonError("a revocation is not an object")
    kind = _KINDS.get(str(row.get("kind")))
    if kind is None:
        raise StrictJsonError("kind is unknown: this version cannot enforce it")
    of_issuer = kind in NAMED_BY_ISSUER
    if row.keys() != (_MEMBERS_OF_ISSUER if of_issuer else _MEMBERS):
        raise StrictJsonError("a revocation has missing or unknown members")
    return Revocation(
        id=_name(row, "id"),
        kind=kind,
        value=_name(row, "value"),
        issuer=_name(row, "iss") if of_issuer else None,
        expires_at=_number(row, "exp"),
    )


def _lift(row: object) -> tuple[str, int]:
    if not isinstance(row, dict):
        raise StrictJsonError("a lift is not an object")
    return _name(row, "id"), _number(row, "exp")


def _row(one: Revocation) -> dict[str, object]:
    row: dict[str, object] = {"id": one.id, "kind": one.kind, "value": one.value, "exp": one.expires_at}
    return row if one.issuer is None else row | {"iss": one.issuer}


def _rows(claims: Mapping[str, object], name: str) -> list[object]:
    rows = claims.get(name)
    if not isinstance(rows, list) or len(rows) > MAX_LISTED:
        raise StrictJsonError(f"{name} is not a list of at most {MAX_LISTED}")
    return rows


def _name(row: Mapping[str, object], member: str) -> str:
    value = row.get(member)
    if not is_name(value):
        raise StrictJsonError(f"{member} is not a name")
    return value


def _number(row: Mapping[str, object], member: str) -> int:
    value = row.get(member)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQ:
        raise StrictJsonError(f"{member} is not a number")
    return value
