from __future__ import annotations

from contextlib import nullcontext
from typing import Final

import pytest

from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.revocation import Kind
from delegation_core.revocation_list import (
    MAX_PEERS,
    parse_list,
    parse_unchanged,
    unchanged_claims,
    verify_list,
    verify_unchanged,
)
from delegation_core.revocations_kept import Listed, Revocations, RevocationsError
from delegation_core.steps import at_once
from sidecar.sts.keys import SigningKey
from tests.core.test_revocation import OTHER, revocation, stopped
from tests.core.world import IDP, NOW, STS
from tests.fakes.revocation_list import claims

KEY: Final = SigningKey.generate()


def signed(revocations: Revocations, *, key: SigningKey = KEY, issuer: str = STS) -> bytes:
    return key.sign_revocations(claims(revocations, issuer))


def read(raw: bytes) -> Listed:
    jws, key = at_once(parse_list(raw)), KEY.verification_key
    return at_once(verify_list(jws, issuer=STS, key=key, algorithms=DEFAULT_ALGORITHMS, now=NOW))


def test_a_signed_list_comes_back_as_it_was() -> None:
    said = stopped(revocation(Kind.SUBJECT, "alice", IDP), revocation(Kind.TXN, "txn-1"), lifted={"x": NOW + 5}, seq=7)
    listed = read(signed(said))
    assert (listed.revoked, listed.lifted) == (said.in_force, said.lifted)
    assert (listed.seq, listed.issued_at, listed.ttl_s) == (7, NOW, 300)


def rewritten(**changes: object) -> bytes:
    return KEY.sign_revocations(claims(stopped(revocation(Kind.TXN, "t")), STS) | changes)


ROW: Final = {"id": "a", "kind": "txn", "value": "t", "exp": NOW + 9}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(signed(stopped(), key=SigningKey.generate()), id="another key"),
        pytest.param(signed(stopped(), issuer=OTHER), id="another issuer"),
        pytest.param(signed(stopped(issued_at=NOW - 400)), id="expired"),
        pytest.param(signed(stopped(issued_at=NOW + 100)), id="from the future"),
        pytest.param(KEY.sign({"iss": STS}).encode(), id="an access token"),
        pytest.param(KEY.sign_unchanged(claims(stopped(), STS)).encode(), id="the claims of a list, as a confirmation"),
        pytest.param(signed(stopped())[:-8], id="cut"),
        pytest.param(b"", id="nothing"),
        pytest.param("\N{SNOWMAN}".encode(), id="no text"),
        pytest.param(rewritten(seq="1"), id="a number that is text"),
        pytest.param(rewritten(seq=True), id="a number that is true"),
        pytest.param(rewritten(exp=NOW), id="an end that is not its ttl"),
        pytest.param(rewritten(revoked={}), id="revocations that are no list"),
        pytest.param(rewritten(revoked=["t"]), id="a revocation that is no object"),
        pytest.param(rewritten(revoked=[ROW, ROW]), id="one revocation twice"),
        pytest.param(rewritten(revoked=[ROW | {"kind": "planet"}]), id="a kind of a later version"),
        pytest.param(rewritten(revoked=[ROW | {"only_for": "x"}]), id="a condition of a later version"),
        pytest.param(rewritten(revoked=[ROW | {"kind": "subject"}]), id="a subject of no issuer"),
        pytest.param(rewritten(revoked=[ROW | {"value": ""}]), id="no value"),
        pytest.param(rewritten(lifted=["a"]), id="a lift that is no object"),
        pytest.param(rewritten(lifted=[{"id": "a", "exp": -1}]), id="a lift with another end"),
        pytest.param(rewritten(heard="x"), id="times of peers that are no list"),
        pytest.param(rewritten(heard=[NOW + 1]), id="a peer that was heard after the list was issued"),
        pytest.param(rewritten(heard=[-1]), id="a peer that was heard before time began"),
        pytest.param(rewritten(heard=[True]), id="a time that is true"),
        pytest.param(rewritten(heard=[NOW] * (MAX_PEERS + 1)), id="more peers than a replica has"),
    ],
)
def test_a_list_with_any_fault_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(RevocationsError):
        read(raw)
    assert read(rewritten(revoked=[ROW])).revoked["a"].value == "t"
    assert read(rewritten(heard=[0, NOW])).heard == (0, NOW)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        pytest.param({}, False, id="lawful"),
        pytest.param({"heard": [NOW + 1]}, True, id="a peer that was heard after it was issued"),
        pytest.param({"tag": '"b"'}, True, id="another list"),
        pytest.param({"iss": OTHER}, True, id="another issuer"),
        pytest.param({"iat": NOW + 61}, True, id="from the future"),
    ],
)
def test_a_confirmation_with_one_fact_changed_is_refused(changes: dict[str, object], refused: bool) -> None:
    said = unchanged_claims(issuer=STS, tag='"a"', issued_at=NOW, heard=[NOW - 5]) | changes
    jws, key = parse_unchanged(KEY.sign_unchanged(said)), KEY.verification_key
    with pytest.raises(RevocationsError) if refused else nullcontext():
        known = verify_unchanged(jws, issuer=STS, tag='"a"', key=key, algorithms=DEFAULT_ALGORITHMS, now=NOW)
        assert (known.issued_at, known.lag_s) == (NOW, 5)


def test_what_is_no_confirmation_is_refused() -> None:
    said = unchanged_claims(issuer=STS, tag='"a"', issued_at=NOW, heard=[])
    assert parse_unchanged(KEY.sign_unchanged(said)).payload
    for raw in (KEY.sign_revocations(said).decode(), KEY.sign(said), "", "a.b"):
        with pytest.raises(RevocationsError):
            parse_unchanged(raw)


def test_a_list_of_any_length_is_read_in_steps() -> None:
    """Taking it apart, its JSON and its rows: none of them at once, however long the list is."""
    said = stopped(*(revocation(Kind.TXN, f"{one:06}", id=f"{one:06}") for one in range(2000)))
    raw = signed(said)
    assert sum(1 for _ in parse_list(raw)) >= len(raw) // 65_536
    jws, key = at_once(parse_list(raw)), KEY.verification_key
    reading = verify_list(jws, issuer=STS, key=key, algorithms=DEFAULT_ALGORITHMS, now=NOW)
    assert sum(1 for _ in reading) >= len(jws.payload) // 16_384 + 2000 // 256
    assert read(raw).revoked == said.in_force


def test_a_list_over_its_size_is_refused() -> None:
    with pytest.raises(RevocationsError, match="too large"):
        at_once(parse_list(b"x" * (8 * 1024 * 1024 + 1)))
