"""A checkpoint is a JWS in parts: who reads a record can put it together, and nothing in it may change."""

from __future__ import annotations

import json
import string
from base64 import urlsafe_b64decode
from dataclasses import replace
from typing import Any

import jwt
import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.checkpoint import (
    Checkpoint,
    CheckpointError,
    Head,
    head_form,
    parse_checkpoint,
    parse_head,
)
from delegation_core.errors import Denied, Reason
from delegation_core.verify import verify_token
from sidecar.sts.keys import SigningKey
from tests.core.world import STS_TRUST
from tests.fakes.sts import FORM
from tests.fakes.tokens import ISSUER, NOW, PLANNER, WRITER

HEAD = Head(run="7f3a", seq=41, hash="ab" * 32)
KEY = SigningKey.generate()
SIGNED = KEY.countersign(HEAD, issuer=ISSUER, workload=WRITER, at=NOW)


def compact(checkpoint: Checkpoint) -> str:
    signature = checkpoint.text().rpartition("sig=")[2]
    return f"{checkpoint.signing_input.decode()}.{signature}"


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_record_gives_back_a_jws_that_any_library_verifies(algorithm: str) -> None:
    key = SigningKey.generate(algorithm)
    text = key.countersign(HEAD, issuer=ISSUER, workload=WRITER, at=NOW).text()
    read = parse_checkpoint(text, workload=WRITER, run=HEAD.run)
    read.verify(key.verification_key)
    decoded = jwt.api_jws.PyJWS().decode_complete(
        compact(read), key=key.verification_key.public_key, algorithms=[algorithm]
    )
    assert decoded["header"] == {"alg": algorithm, "kid": key.kid, "typ": "record-checkpoint+jws"}
    assert json.loads(decoded["payload"]) == {
        "iss": ISSUER,
        "sub": WRITER,
        "iat": NOW,
        "run": "7f3a",
        "seq": 41,
        "hash": "ab" * 32,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://other.example"},
        {"workload": PLANNER},
        {"at": NOW + 1},
        {"head": replace(HEAD, run="7f3b")},
        {"head": replace(HEAD, seq=42)},
        {"head": replace(HEAD, hash="ac" * 32)},
        {"kid": "another"},
        {"signature": SIGNED.signature[::-1]},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_the_signature_covers_every_part(change: dict[str, Any]) -> None:
    SIGNED.verify(KEY.verification_key)
    with pytest.raises(Denied) as refused:
        replace(SIGNED, **change).verify(KEY.verification_key)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_the_key_chooses_the_algorithm() -> None:
    with pytest.raises(Denied) as refused:
        replace(SIGNED, alg="EdDSA").verify(KEY.verification_key)
    assert refused.value.reason is Reason.ALG_NOT_ALLOWED


def test_it_is_no_access_token() -> None:
    bearer = parse_bearer(compact(SIGNED))
    with pytest.raises(Denied) as refused:
        verify_token(bearer, issuer=STS_TRUST, key=KEY.verification_key, audiences=frozenset({str(WRITER)}), now=NOW)
    assert refused.value.reason is Reason.TOKEN_TYPE


def test_its_text_holds_nothing_that_looks_like_a_token() -> None:
    from delegation_core.records.record_text import escape

    assert escape(SIGNED.text()) == SIGNED.text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("iss=", "iss "),
        (" seq=41", " seq=041"),
        (" seq=41", ""),
        ("ab" * 32, "AB" * 32),
        (" sig=", "  sig="),
        (" sig=", " sig=="),
        ("iat=", "iat=-"),
    ],
)
def test_another_form_is_no_checkpoint(old: str, new: str) -> None:
    text = SIGNED.text()
    assert old in text
    with pytest.raises(CheckpointError):
        parse_checkpoint(text.replace(old, new, 1), workload=WRITER, run=HEAD.run)


def test_a_signature_has_one_spelling() -> None:
    text = SIGNED.text()
    last = text[-1]
    other = next(
        letter
        for letter in string.ascii_letters + string.digits
        if letter != last and urlsafe_b64decode(text[-2:-1] + letter + "==") == urlsafe_b64decode(text[-2:] + "==")
    )
    with pytest.raises(CheckpointError, match="canonical"):
        parse_checkpoint(text[:-1] + other, workload=WRITER, run=HEAD.run)


def test_a_request_says_which_head() -> None:
    assert parse_head(head_form(HEAD), FORM) == HEAD


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(head_form(HEAD), "application/json", id="another-type"),
        pytest.param(head_form(HEAD) + b"&seq=42", FORM, id="repeated"),
        pytest.param(head_form(HEAD) + b"&sub=x", FORM, id="one-more"),
        pytest.param(b"run=7f3a&seq=41", FORM, id="no-hash"),
        pytest.param(head_form(replace(HEAD, seq=0)), FORM, id="seq-0"),
        pytest.param(head_form(replace(HEAD, seq=2**53)), FORM, id="seq-too-large"),
        pytest.param(head_form(replace(HEAD, hash="ab")), FORM, id="a-short-hash"),
        pytest.param(head_form(replace(HEAD, run="a b")), FORM, id="run-with-a-blank"),
        pytest.param(head_form(replace(HEAD, run="")), FORM, id="no-run"),
        pytest.param(head_form(HEAD) + b"&" * 1024, FORM, id="too-large"),
    ],
)
def test_any_other_request_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(Denied) as refused:
        parse_head(body, content_type)
    assert refused.value.reason is Reason.EXCHANGE_MALFORMED
