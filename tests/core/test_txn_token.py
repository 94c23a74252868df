"""Transaction tokens: verified before they are passed on, each check with one fact changed."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.bearer import parse_txn_token
from delegation_core.errors import Denied, Reason
from delegation_core.txn_token import TxnToken, verify_txn_token
from tests.fakes.tokens import ABSENT, NOW, TokenMint
from tests.fakes.txn_tokens import SOURCE, TTS, txn_claims, txn_token

HOME_ALICE = {"format": "iss_sub", "iss": SOURCE.subject_issuer, "sub": "alice"}


def verified(raw: str) -> TxnToken:
    return verify_txn_token(parse_txn_token(raw), source=SOURCE, key=TTS.key, now=NOW)


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        pytest.param({}, {}, id="without iss"),
        pytest.param({}, {"iss": TTS.issuer}, id="with iss"),
        pytest.param({}, {"aud": ["acme.example"]}, id="aud in a list of one"),
        pytest.param({"typ": "application/txntoken+jwt"}, {}, id="a whole media type"),
        pytest.param({}, {"tctx": ABSENT}, id="no context"),
        pytest.param({}, {"exp": NOW - 10}, id="within the leeway"),
        pytest.param({}, {"act": {"sub": "x"}, "agentic_ctx": {}}, id="claims of the extension for agents"),
    ],
)
def test_a_token_of_the_trust_domain_is_verified(header: dict[str, object], changes: dict[str, object]) -> None:
    token = verified(txn_token(header, **changes))
    assert (token.txn, token.subject) == ("txn-1", "alice")
    assert token.raw not in repr(token)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(txn_token({"typ": "at+jwt"}), Reason.TOKEN_TYPE, id="an access token"),
        pytest.param(txn_token({"typ": ABSENT}), Reason.TOKEN_TYPE, id="untyped"),
        pytest.param(txn_token({"alg": "HS256"}), Reason.ALG_NOT_ALLOWED, id="symmetric"),
        pytest.param(txn_token(mint=TokenMint(TTS.issuer, kid="t1", key=9)), Reason.BAD_SIGNATURE, id="forged"),
        pytest.param(txn_token(iss="https://other.example"), Reason.WRONG_ISSUER, id="another service"),
        pytest.param(txn_token(aud="partner.example"), Reason.WRONG_AUDIENCE, id="another trust domain"),
        pytest.param(txn_token(aud=["acme.example", "partner.example"]), Reason.WRONG_AUDIENCE, id="two domains"),
        pytest.param(txn_token(aud=ABSENT), Reason.WRONG_AUDIENCE, id="no domain"),
        pytest.param(txn_token(exp=NOW - 31), Reason.TOKEN_EXPIRED, id="expired"),
        pytest.param(txn_token(iat=NOW + 60), Reason.TOKEN_NOT_YET_VALID, id="of the future"),
        pytest.param(txn_token(exp=ABSENT), Reason.MALFORMED_TOKEN, id="no exp"),
        *(
            pytest.param(txn_token(**{claim: ABSENT}), Reason.MALFORMED_TOKEN, id=f"no {claim}")
            for claim in ("iat", "txn", "sub", "scope", "req_wl")
        ),
        pytest.param(txn_token(txn=""), Reason.MALFORMED_TOKEN, id="an empty txn"),
        pytest.param(txn_token(txn=7), Reason.MALFORMED_TOKEN, id="txn is a number"),
        pytest.param(txn_token(sub=None), Reason.MALFORMED_TOKEN, id="sub is null"),
        pytest.param(txn_token(req_wl=["a"]), Reason.MALFORMED_TOKEN, id="req_wl is a list"),
        pytest.param(txn_token(scope=["crm.read"]), Reason.MALFORMED_TOKEN, id="scope is a list"),
        pytest.param("SlAV32hkKG", Reason.MALFORMED_TOKEN, id="opaque"),
        pytest.param("a" * 20_000, Reason.TOKEN_TOO_LARGE, id="huge"),
    ],
)
def test_anything_else_is_refused(raw: str, reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        verified(raw)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("token", "access", "fits"),
    [
        pytest.param({}, {"sub": "alice", "txn": "txn-1"}, True, id="of the same call"),
        pytest.param({}, {"sub": "alice"}, True, id="the access token names no transaction"),
        pytest.param({}, {"sub": "bob", "txn": "txn-1"}, False, id="another user"),
        pytest.param({}, {"sub": "alice", "txn": "txn-2"}, False, id="another transaction"),
        pytest.param({"sub": "ALICE"}, {"sub": "alice", "txn": "txn-1"}, False, id="another spelling"),
        pytest.param({}, {"sub": "alice", "iss": "https://partner.example"}, False, id="alice of another issuer"),
        pytest.param(
            {},
            {"sub": "alice", "iss": "https://partner.example", "sub_id": HOME_ALICE},
            False,
            id="that says it is ours",
        ),
        pytest.param(
            {"sub": "partner:alice"}, {"sub": "partner:alice"}, True, id="alice of another issuer, by her name here"
        ),
        pytest.param({}, {"sub": "partner:alice"}, False, id="and she is not ours"),
    ],
)
def test_it_is_of_the_same_user_and_transaction_as_the_access_token(
    token: dict[str, Any], access: dict[str, Any], fits: bool
) -> None:
    beside = verified(txn_token(**token))
    of = TokenMint(str(access.get("iss", SOURCE.subject_issuer))).verified(**access)
    if fits:
        beside.check_beside(of)
        return
    with pytest.raises(Denied) as caught:
        beside.check_beside(of)
    assert caught.value.reason is Reason.TXN_TOKEN_REFUSED


def test_what_a_lawful_token_has() -> None:
    assert txn_claims().keys() >= {"aud", "iat", "exp", "txn", "sub", "scope", "req_wl"}
