"""JWT-SVIDs as actor tokens (JWT-SVID sections 2 to 4)."""

from __future__ import annotations

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Denied, Reason
from delegation_core.jwt_svid import svid_subject, verify_jwt_svid
from tests.fakes.tokens import ABSENT, ISSUER, NOW, PLANNER, SvidMint, TokenMint

MINT = SvidMint()

REFUSED: dict[str, tuple[dict[str, object], Reason]] = {
    "exp missing": ({"exp": ABSENT}, Reason.MALFORMED_TOKEN),
    "exp a string": ({"exp": str(NOW + 60)}, Reason.MALFORMED_TOKEN),
    "expired": ({"exp": NOW - 30}, Reason.TOKEN_EXPIRED),
    "nbf ahead": ({"nbf": NOW + 31}, Reason.TOKEN_NOT_YET_VALID),
    "iat ahead": ({"iat": NOW + 31}, Reason.TOKEN_NOT_YET_VALID),
    "aud missing": ({"aud": ABSENT}, Reason.WRONG_AUDIENCE),
    "aud another": ({"aud": [f"{ISSUER}/token"]}, Reason.WRONG_AUDIENCE),
    "aud two values": ({"aud": [ISSUER, "https://other.example"]}, Reason.WRONG_AUDIENCE),
    "aud a number": ({"aud": 1}, Reason.MALFORMED_TOKEN),
    "sub missing": ({"sub": ABSENT}, Reason.MALFORMED_TOKEN),
    "sub a number": ({"sub": 1}, Reason.MALFORMED_TOKEN),
    "sub a user": ({"sub": "user-4711"}, Reason.MALFORMED_TOKEN),
    "sub a trust domain": ({"sub": "spiffe://acme.example"}, Reason.MALFORMED_TOKEN),
    "sub with a parent segment": ({"sub": "spiffe://acme.example/agent/../x"}, Reason.MALFORMED_TOKEN),
    "an actor of its own": ({"act": {"sub": PLANNER}}, Reason.TOKEN_TYPE),
}


def test_a_lawful_jwt_svid_names_its_workload() -> None:
    bearer = MINT.bearer()

    svid = verify_jwt_svid(bearer, key=MINT.key, audience=ISSUER, now=NOW)

    assert svid.spiffe_id == PLANNER
    assert svid.expires_at == NOW + 290
    assert svid.raw == bearer.raw
    assert svid.fingerprint == bearer.fingerprint
    assert svid.raw not in repr(svid)


@pytest.mark.parametrize("changes", [{"aud": ISSUER}, {"iat": ABSENT}, {"iss": "https://spire.example"}, {"jti": "x"}])
def test_what_the_standard_leaves_open_is_accepted(changes: dict[str, object]) -> None:
    assert verify_jwt_svid(MINT.bearer(**changes), key=MINT.key, audience=ISSUER, now=NOW).spiffe_id == PLANNER


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_one_fact_changed_is_refused(changes: dict[str, object], reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        verify_jwt_svid(MINT.bearer(**changes), key=MINT.key, audience=ISSUER, now=NOW)

    assert caught.value.reason is reason


def test_another_domains_key_does_not_verify() -> None:
    with pytest.raises(Denied) as caught:
        verify_jwt_svid(MINT.bearer(), key=SvidMint(key=1).key, audience=ISSUER, now=NOW)

    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_a_curve_that_jwt_svids_do_not_know_is_refused() -> None:
    mint = TokenMint(algorithm="EdDSA")

    with pytest.raises(Denied) as caught:
        verify_jwt_svid(parse_bearer(mint.mint()), key=mint.key, audience=ISSUER, now=NOW)

    assert caught.value.reason is Reason.ALG_NOT_ALLOWED


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS384", "ES384", "ES512"])
def test_the_standards_algorithms_are_accepted(algorithm: str) -> None:
    mint = SvidMint(algorithm=algorithm)

    assert verify_jwt_svid(mint.bearer(), key=mint.key, audience=ISSUER, now=NOW).spiffe_id == PLANNER


def test_the_claimed_subject_tells_whose_keys_to_take() -> None:
    assert svid_subject(MINT.bearer()).trust_domain == "acme.example"


def test_a_jwt_svid_is_no_access_token() -> None:
    with pytest.raises(Denied) as caught:
        parse_bearer(MINT.mint())

    assert caught.value.reason is Reason.MALFORMED_TOKEN
