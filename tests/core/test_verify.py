"""One fact of a lawful token is changed; the token is refused, for that reason (RFC 7519, RFC 8725, RFC 9068)."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.act import Actor
from delegation_core.bearer import parse_bearer
from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey
from delegation_core.profile import IssuerProfile
from delegation_core.profile_presets import PRESETS
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import (
    ActorForm,
    VerifiedToken,
    check_binding,
    check_header,
    check_times,
    verify_again,
    verify_token,
)
from tests.core.test_act import nested
from tests.core.test_strict_json import JSON
from tests.core.world import reason_of
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER, TokenMint, base64url, changed, encode

MINT = TokenMint()
CERTIFICATE = hashlib.sha256(b"the peer's certificate").digest()
THUMBPRINT = base64url(CERTIFICATE)


def verify(
    raw: str,
    *,
    profile: str | IssuerProfile = "sts",
    mint: TokenMint = MINT,
    key: VerificationKey | None = None,
    audience: str = WRITER,
    now: int = NOW,
    certificate: str | None = None,
) -> VerifiedToken:
    return verify_token(
        parse_bearer(raw),
        issuer=mint.trusted(profile),
        key=key or mint.key,
        audiences=frozenset({audience}),
        now=now,
        peer_certificate_sha256=certificate,
    )


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        ({"iss": ISSUER, "sub": PLANNER}, "accepted"),
        ({"iss": ISSUER, "sub": PLANNER, "act": {"sub": CRM}}, "accepted"),  # earlier actors are copied as they came
        ({"sub": PLANNER}, "act_malformed"),
        ({"sub": PLANNER, "act": {"iss": ISSUER, "sub": CRM}}, "act_malformed"),
        ({"iss": "", "sub": PLANNER}, "act_malformed"),
        ({"iss": None, "sub": PLANNER}, "act_malformed"),
    ],
)
def test_the_actor_profile_requires_the_issuer_of_the_actor(act: dict[str, object], outcome: str) -> None:
    raw = MINT.mint(MINT.claims(act=act))
    assert refusal(raw, profile="actor-profile-01") == outcome


def test_an_actor_of_another_namespace_is_nobody_by_the_actor_profile() -> None:
    named = verify(MINT.mint(MINT.claims(act={"iss": ISSUER, "sub": PLANNER})), profile="actor-profile-01")
    foreign = MINT.mint(MINT.claims(act={"iss": "https://other.example", "sub": PLANNER}))
    other = verify(foreign, profile="actor-profile-01")
    assert (named.actor_id, other.actor_id) == (PLANNER, None)


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        ({"sub": PLANNER, "iss": ISSUER}, "accepted"),
        ({"sub": PLANNER, "iss": "https://other.example"}, "act_malformed"),
        ({"sub": PLANNER, "sub_profile": "ai_agent"}, "accepted"),
        ({"sub": PLANNER, "sub_profile": "user"}, "act_malformed"),
        ({"sub": PLANNER, "sub_profile": ["user"]}, "act_malformed"),
        ({"sub": PLANNER, "client_id": WRITER}, "act_malformed"),
        ({"sub": PLANNER, "act": {"sub": WRITER, "iss": "https://other.example"}}, "accepted"),
        ({"sub": PLANNER, "act": {"sub": WRITER, "sub_profile": "user"}}, "act_malformed"),
        ({"sub": PLANNER, "act": {"sub": WRITER, "client_id": PLANNER}}, "act_malformed"),
    ],
)
def test_an_actor_whose_facts_contradict_its_name_is_refused(act: dict[str, object], outcome: str) -> None:
    assert refusal(MINT.mint(MINT.claims(act=act))) == outcome


def refusal(raw: str, **arguments: Any) -> str:
    try:
        verify(raw, **arguments)
    except Denied as error:
        return error.reason
    return "accepted"


CLAIMS: dict[str, tuple[dict[str, object], str]] = {
    "nothing changed": ({}, "accepted"),
    "iss with a slash": ({"iss": f"{ISSUER}/"}, "wrong_issuer"),
    "iss in capitals": ({"iss": ISSUER.upper()}, "wrong_issuer"),
    "iss empty": ({"iss": ""}, "wrong_issuer"),
    "iss missing": ({"iss": ABSENT}, "malformed_token"),
    "exp missing": ({"exp": ABSENT}, "malformed_token"),
    "exp null": ({"exp": None}, "malformed_token"),
    "exp a string": ({"exp": str(NOW + 60)}, "malformed_token"),
    "exp true": ({"exp": True}, "malformed_token"),
    "exp NaN": ({"exp": float("nan")}, "malformed_token"),
    "exp infinite": ({"exp": float("inf")}, "malformed_token"),
    "exp negative": ({"exp": -1}, "malformed_token"),
    "exp absurd": ({"exp": 1e308}, "malformed_token"),
    "exp of 400 digits": ({"exp": 10**400}, "malformed_token"),
    "exp zero": ({"exp": 0}, "token_expired"),
    "exp now": ({"exp": NOW}, "accepted"),
    "exp now, less the leeway": ({"exp": NOW - 30}, "token_expired"),
    "exp a float": ({"exp": NOW + 60.5}, "accepted"),
    "a life of a day": ({"iat": NOW - 40000, "exp": NOW + 46400}, "accepted"),
    "a life of more than a day": ({"iat": NOW - 40000, "exp": NOW + 46401}, "token_expired"),
    "nbf ahead": ({"nbf": NOW + 31}, "token_not_yet_valid"),
    "nbf now": ({"nbf": NOW}, "accepted"),
    "nbf a string": ({"nbf": str(NOW)}, "malformed_token"),
    "iat ahead": ({"iat": NOW + 31}, "token_not_yet_valid"),
    "iat a string": ({"iat": str(NOW)}, "malformed_token"),
    "iat missing": ({"iat": ABSENT}, "malformed_token"),
    "aud in an array": ({"aud": [WRITER]}, "accepted"),
    "aud another workload": ({"aud": CRM}, "wrong_audience"),
    "aud a prefix": ({"aud": WRITER[:-1]}, "wrong_audience"),
    "aud a longer path": ({"aud": f"{WRITER}/x"}, "wrong_audience"),
    "aud in capitals": ({"aud": WRITER.upper()}, "wrong_audience"),
    "aud missing": ({"aud": ABSENT}, "wrong_audience"),
    "aud empty": ({"aud": ""}, "wrong_audience"),
    "aud an empty array": ({"aud": []}, "wrong_audience"),
    "aud two values, ours first": ({"aud": [WRITER, CRM]}, "wrong_audience"),
    "aud two values, ours last": ({"aud": [CRM, WRITER]}, "wrong_audience"),
    "aud twice ours": ({"aud": [WRITER, WRITER]}, "wrong_audience"),
    "aud a number": ({"aud": 1}, "malformed_token"),
    "aud null": ({"aud": None}, "malformed_token"),
    "aud an object": ({"aud": {WRITER: True}}, "malformed_token"),
    "aud an array of numbers": ({"aud": [1]}, "malformed_token"),
    "sub missing": ({"sub": ABSENT}, "malformed_token"),
    "sub empty": ({"sub": ""}, "malformed_token"),
    "sub a number": ({"sub": 4711}, "malformed_token"),
    "sub null": ({"sub": None}, "malformed_token"),
    "sub an array": ({"sub": ["user-4711"]}, "malformed_token"),
    "sub with a line break": ({"sub": "user\r\nDelegation-Scope: all"}, "malformed_token"),
    "sub with a null byte": ({"sub": "user\x00"}, "malformed_token"),
    "sub of 2048 bytes": ({"sub": "u" * 2048}, "accepted"),
    "sub of 2049 bytes": ({"sub": "u" * 2049}, "malformed_token"),
    "sub a workload": ({"sub": PLANNER}, "accepted"),
    "jti missing": ({"jti": ABSENT}, "malformed_token"),
    "jti empty": ({"jti": ""}, "malformed_token"),
    "jti a number": ({"jti": 1}, "malformed_token"),
    "client_id missing": ({"client_id": ABSENT}, "malformed_token"),
    "client_id null": ({"client_id": None}, "malformed_token"),
    "txn a number": ({"txn": 1}, "malformed_token"),
    "parent_jti an array": ({"parent_jti": []}, "malformed_token"),
    "ancestors a text": ({"ancestor_jtis": "token-0"}, "malformed_token"),
    "ancestors of another kind": ({"ancestor_jtis": [1]}, "malformed_token"),
    "more ancestors than a chain has": ({"ancestor_jtis": ["t"] * 100}, "malformed_token"),
    "scope missing": ({"scope": ABSENT}, "accepted"),
    "scope empty": ({"scope": ""}, "accepted"),
    "scope an array": ({"scope": ["docs.read"]}, "malformed_token"),
    "scope null": ({"scope": None}, "malformed_token"),
    "scope with two spaces": ({"scope": "docs.read  crm.read"}, "malformed_token"),
    "scope with a tab": ({"scope": "docs.read\tcrm.read"}, "malformed_token"),
    "scp beside scope": ({"scp": ["all"]}, "accepted"),
    "sub_id of another format": ({"sub_id": {"format": "email", "email": "a@acme.example"}}, "accepted"),
    "sub_id null": ({"sub_id": None}, "malformed_token"),
    "sub_id a string": ({"sub_id": "user"}, "malformed_token"),
    "sub_id without sub": ({"sub_id": {"format": "iss_sub", "iss": "https://idp.example"}}, "malformed_token"),
    "sub_id with an empty iss": ({"sub_id": {"format": "iss_sub", "iss": "", "sub": "a"}}, "malformed_token"),
    "cnf null": ({"cnf": None}, "malformed_token"),
    "cnf a string": ({"cnf": THUMBPRINT}, "malformed_token"),
    "cnf with a thumbprint that is not a string": ({"cnf": {"x5t#S256": 1}}, "malformed_token"),
    "cnf empty": ({"cnf": {}}, "cnf_mismatch"),
    "cnf of another kind": ({"cnf": {"jkt": THUMBPRINT}}, "cnf_mismatch"),
    "cnf a key": ({"cnf": {"jwk": {}}}, "cnf_mismatch"),
    "cnf of the certificate and another kind": ({"cnf": {"x5t#S256": THUMBPRINT, "jkt": "x"}}, "cnf_mismatch"),
    "cnf where no certificate is known": ({"cnf": {"x5t#S256": THUMBPRINT}}, "cnf_mismatch"),
    "act null": ({"act": None}, "act_malformed"),
    "act a string": ({"act": PLANNER}, "act_malformed"),
    "act an array": ({"act": [{"sub": PLANNER}]}, "act_malformed"),
    "act empty": ({"act": {}}, "act_malformed"),
    "act.sub a number": ({"act": {"sub": 1}}, "act_malformed"),
    "act.act a string": ({"act": {"sub": PLANNER, "act": WRITER}}, "act_malformed"),
    "act of eight actors": ({"act": nested(*[PLANNER] * 8)}, "accepted"),
    "act of nine actors": ({"act": nested(*[PLANNER] * 9)}, "act_too_deep"),
    "act of a hundred actors": ({"act": nested(*["a"] * 100)}, "act_too_deep"),
    "act missing is left to the decision": ({"act": ABSENT}, "accepted"),
    "may_act has no effect": ({"may_act": {"sub": CRM}}, "accepted"),
    "an unknown claim": ({"tenant": {"name": ["acme"]}}, "accepted"),
}
HEADERS: dict[str, tuple[dict[str, object], str]] = {
    "typ in capitals": ({"typ": "AT+JWT"}, "accepted"),
    "typ with the long name": ({"typ": "application/at+jwt"}, "accepted"),
    "typ missing": ({"typ": ABSENT}, "token_type"),
    "typ JWT": ({"typ": "JWT"}, "token_type"),
    "typ of a proof": ({"typ": "dpop+jwt"}, "token_type"),
    "typ of an identity assertion": ({"typ": "oauth-id-jag+jwt"}, "token_type"),
    "typ of a transaction": ({"typ": "txntoken+jwt"}, "token_type"),
    "typ of a workload identity": ({"typ": "wit+jwt"}, "token_type"),
    "typ of a logout": ({"typ": "logout+jwt"}, "token_type"),
    "typ empty": ({"typ": ""}, "token_type"),
    "typ longer": ({"typ": "at+jwt2"}, "token_type"),
    "alg of a larger hash": ({"alg": "RS512"}, "alg_not_allowed"),
    "alg of another kind of key": ({"alg": "RS256"}, "alg_not_allowed"),
    "alg of another curve": ({"alg": "ES384"}, "alg_not_allowed"),
    "alg none": ({"alg": "none"}, "alg_not_allowed"),
    "alg HS256": ({"alg": "HS256"}, "alg_not_allowed"),
}
ORDER: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "typ before alg": ({"typ": "JWT", "alg": "RS512"}, {}, "token_type"),
    "iss before typ": ({"typ": "JWT"}, {"iss": "https://evil.example"}, "wrong_issuer"),
    "typ before times": ({"typ": "JWT"}, {"exp": 0}, "token_type"),
    "times before audience": ({}, {"exp": 0, "aud": CRM}, "token_expired"),
    "audience before required claims": ({}, {"aud": CRM, "sub": ABSENT}, "wrong_audience"),
    "required claims before cnf": ({}, {"jti": ABSENT, "cnf": {}}, "malformed_token"),
    "cnf before act": ({}, {"cnf": {}, "act": None}, "cnf_mismatch"),
}


@pytest.mark.parametrize(("changes", "outcome"), CLAIMS.values(), ids=CLAIMS.keys())
def test_a_claim_decides(changes: dict[str, object], outcome: str) -> None:
    assert refusal_of_claims(changes) == outcome


def refusal_of_claims(changes: dict[str, object]) -> str:
    raw = MINT.mint(MINT.claims(**changes))
    try:
        parse_bearer(raw)
    except Denied as error:
        return error.reason
    return refusal(raw)


@pytest.mark.parametrize(("changes", "outcome"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_member_decides(changes: dict[str, object], outcome: str) -> None:
    assert refusal(MINT.mint(header=MINT.header(**changes))) == outcome


@pytest.mark.parametrize(("header", "claims", "outcome"), ORDER.values(), ids=ORDER.keys())
def test_the_first_failure_wins(header: dict[str, object], claims: dict[str, object], outcome: str) -> None:
    assert refusal(MINT.mint(MINT.claims(**claims), MINT.header(**header))) == outcome


@pytest.mark.parametrize("changes", [{"exp": 0}, {"aud": CRM}, {"sub": ABSENT}, {"act": None}], ids=str)
def test_no_claim_is_looked_at_before_the_signature(changes: dict[str, object]) -> None:
    raw = TokenMint(key=1).mint(MINT.claims(**changes))

    assert refusal(raw) == "bad_signature"


def test_a_token_signed_by_another_key_is_refused() -> None:
    assert refusal(TokenMint(key=1).mint()) == "bad_signature"


def test_a_token_whose_claims_were_changed_after_signing_is_refused() -> None:
    header, _, signature = MINT.mint().split(".")

    assert refusal(f"{header}.{base64url(encode(MINT.claims(sub='admin')))}.{signature}") == "bad_signature"


def test_a_verified_token_says_what_was_signed() -> None:
    raw = MINT.mint(
        MINT.claims(
            txn="txn-1",
            parent_jti="token-0",
            nbf=NOW - 5,
            sub_id={"format": "iss_sub", "iss": "https://idp.example", "sub": "4711"},
            act=nested(PLANNER, "spiffe://acme.example/app/front"),
        )
    )

    token = verify(raw)

    assert token.chain is not None
    assert token.chain.actors == (Actor(PLANNER), Actor("spiffe://acme.example/app/front"))
    assert dataclasses.replace(token, claims={}, chain=None) == VerifiedToken(
        raw=raw,
        fingerprint=parse_bearer(raw).fingerprint,
        issuer=ISSUER,
        subject="user-4711",
        audience=WRITER,
        scope=frozenset({"docs.read"}),
        expires_at=NOW + 290,
        issued_at=NOW - 10,
        not_before=NOW - 5,
        leeway_s=30,
        jti="token-1",
        client_id=PLANNER,
        txn="txn-1",
        parent_jti="token-0",
        sub_id=("https://idp.example", "4711"),
        actor_id=PLANNER,
        claims={},
    )


def test_an_actor_that_cannot_be_mapped_is_none() -> None:
    assert verify(MINT.mint(MINT.claims(act={"sub": "planner"}))).actor_id is None


def test_a_token_without_act_has_no_chain_and_no_actor() -> None:
    token = verify(MINT.mint(MINT.claims(act=ABSENT)))

    assert token.chain is None
    assert token.actor_id is None


def test_the_representation_shows_neither_token_nor_subject() -> None:
    token = verify(MINT.mint(MINT.claims(sub="secret-subject", email="secret@acme.example")))

    assert "secret" not in repr(token)
    assert token.raw not in repr(token)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"])
def test_the_ordinary_asymmetric_algorithms_are_accepted(algorithm: str) -> None:
    mint = TokenMint(algorithm=algorithm)

    assert verify(mint.mint(), mint=mint).subject == "user-4711"


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS384", "PS512", "ES512"])
def test_other_algorithms_are_refused_though_the_key_could(algorithm: str) -> None:
    mint = TokenMint(algorithm=algorithm)

    assert refusal(mint.mint(), mint=mint) == "alg_not_allowed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": "https://evil.example"}, Reason.WRONG_ISSUER),
        ({"typ": "jwt"}, Reason.TOKEN_TYPE),
        ({"typ": None}, Reason.TOKEN_TYPE),
        ({"alg": "ES512"}, Reason.ALG_NOT_ALLOWED),
    ],
)
def test_the_header_is_judged_before_a_key_is_looked_for(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        check_header(dataclasses.replace(MINT.bearer(), **changes), MINT.trusted())

    assert caught.value.reason is reason


# The binding to a certificate (RFC 8705 section 3).

BOUND = MINT.mint(MINT.claims(cnf={"x5t#S256": THUMBPRINT}))


def test_a_token_bound_to_the_peers_certificate_is_accepted() -> None:
    assert verify(BOUND, certificate=CERTIFICATE.hex()).certificate_thumbprint == THUMBPRINT


def test_a_second_binding_that_cannot_be_proven_is_not_passed_over() -> None:
    raw = MINT.mint(MINT.claims(cnf={"x5t#S256": THUMBPRINT, "jkt": "x"}))

    assert refusal(raw, certificate=CERTIFICATE.hex()) == "cnf_mismatch"


@pytest.mark.parametrize("thumbprint", [THUMBPRINT.lower(), f"{THUMBPRINT}=", THUMBPRINT[:-1], CERTIFICATE.hex()])
def test_a_thumbprint_is_compared_whole(thumbprint: str) -> None:
    raw = MINT.mint(MINT.claims(cnf={"x5t#S256": thumbprint}))

    assert refusal(raw, certificate=CERTIFICATE.hex()) == "cnf_mismatch"


@pytest.mark.parametrize("certificate", [None, hashlib.sha256(b"another certificate").hexdigest()])
def test_a_cached_verdict_is_good_with_the_bound_certificate_only(certificate: str | None) -> None:
    token = verify(BOUND, certificate=CERTIFICATE.hex())
    check_binding(token, CERTIFICATE.hex())

    with pytest.raises(Denied) as caught:
        check_binding(token, certificate)

    assert caught.value.reason is Reason.CNF_MISMATCH


def test_an_unbound_token_is_good_with_any_certificate() -> None:
    assert reason_of(check_binding, verify(MINT.mint()), CERTIFICATE.hex()) is None
    assert reason_of(check_binding, verify(MINT.mint()), None) is None


def test_a_cached_verdict_ends_with_the_token() -> None:
    token = verify(MINT.mint())
    check_times(token, NOW + 319)

    with pytest.raises(Denied) as caught:
        check_times(token, NOW + 320)

    assert caught.value.reason is Reason.TOKEN_EXPIRED


# Presets: one real token of each product, then one fact changed.

I = ISSUER  # noqa: E741 - the tokens below are wide
TIMES: dict[str, object] = {"iss": I, "iat": NOW - 10, "exp": NOW + 290}
KEYCLOAK = {
    **TIMES,
    "jti": "t",
    "typ": "Bearer",
    "azp": PLANNER,
    "aud": WRITER,
    "sub": "7b0c",
    "scope": "docs.read",
    "act": {"sub": "0b8f", "client_id": PLANNER},
}
KEYCLOAK_26_7 = changed(KEYCLOAK, {"act": ABSENT, "jti": "ntrtte:t", "sid": "s", "acr": "1"})
SPRING = {**TIMES, "jti": "t", "sub": "alice", "aud": WRITER, "scope": ["docs.read"], "act": {"iss": I, "sub": PLANNER}}
ZITADEL = {**TIMES, "client_id": "p", "sub": "id2", "aud": [WRITER], "scp": ["docs.read"], "act": {"sub": PLANNER}}
ENTRA = {
    **TIMES, "azp": "agent", "sub": "pairwise", "aud": WRITER, "scp": "docs.read", "oid": "o", "idtyp": "user",
    "xms_act_fct": "3 11",
}  # fmt: skip
ID_TOKEN = {**TIMES, "sub": "alice", "aud": WRITER, "nonce": "n", "at_hash": "h"}
ACCESS_TOKEN = {**TIMES, "sub": "alice", "aud": "https://api.example", "azp": WRITER, "scope": "openid docs.read"}

PRESET_ROWS: dict[str, tuple[str, dict[str, object], object, str]] = {
    "keycloak": ("keycloak", KEYCLOAK, "JWT", "accepted"),
    "keycloak, RFC 9068 type": ("keycloak", KEYCLOAK, "at+jwt", "accepted"),
    "keycloak, untyped": ("keycloak", KEYCLOAK, ABSENT, "token_type"),
    "keycloak, an ID token": ("keycloak", {**KEYCLOAK, "typ": "ID"}, "JWT", "token_type"),
    "keycloak, a refresh token": ("keycloak", {**KEYCLOAK, "typ": "Refresh"}, "JWT", "token_type"),
    "keycloak, a logout token": ("keycloak", {**KEYCLOAK, "typ": "Logout"}, "JWT", "token_type"),
    "keycloak, no kind": ("keycloak", changed(KEYCLOAK, {"typ": ABSENT}), "JWT", "token_type"),
    "keycloak, kind a number": ("keycloak", {**KEYCLOAK, "typ": 1}, "JWT", "malformed_token"),
    "keycloak, bound by DPoP": ("keycloak", {**KEYCLOAK, "typ": "DPoP", "cnf": {"jkt": "x"}}, "JWT", "cnf_mismatch"),
    "keycloak, no azp": ("keycloak", changed(KEYCLOAK, {"azp": ABSENT}), "JWT", "malformed_token"),
    "keycloak, chained": ("keycloak", {**KEYCLOAK, "act": nested("a", "b")}, "JWT", "act_too_deep"),
    "keycloak-26.7": ("keycloak-26.7", KEYCLOAK_26_7, "JWT", "accepted"),
    "keycloak-26.7, RFC 9068 type": ("keycloak-26.7", KEYCLOAK_26_7, "at+jwt", "accepted"),
    "keycloak-26.7, within a session of the client": (
        "keycloak-26.7",
        {**KEYCLOAK_26_7, "jti": "onrtte:t"},
        "JWT",
        "accepted",
    ),
    "keycloak-26.7, a client's own token": ("keycloak-26.7", {**KEYCLOAK_26_7, "jti": "trrtcc:t"}, "JWT", "token_type"),
    "keycloak-26.7, got for a client's own token": (
        "keycloak-26.7",
        {**KEYCLOAK_26_7, "jti": "trrtte:t"},
        "JWT",
        "token_type",
    ),
    "keycloak-26.7, a login": ("keycloak-26.7", {**KEYCLOAK_26_7, "jti": "onrtac:t"}, "JWT", "token_type"),
    "keycloak-26.7, a jti of its own": ("keycloak-26.7", {**KEYCLOAK_26_7, "jti": "t"}, "JWT", "token_type"),
    "keycloak-26.7, no jti": ("keycloak-26.7", changed(KEYCLOAK_26_7, {"jti": ABSENT}), "JWT", "malformed_token"),
    "keycloak-26.7, jti a number": ("keycloak-26.7", {**KEYCLOAK_26_7, "jti": 7}, "JWT", "malformed_token"),
    "keycloak-26.7, an act that its administrator wrote": (
        "keycloak-26.7",
        {**KEYCLOAK_26_7, "act": {"sub": PLANNER}},
        "JWT",
        "act_malformed",
    ),
    "keycloak-26.7, an ID token": ("keycloak-26.7", {**KEYCLOAK_26_7, "typ": "ID"}, "JWT", "token_type"),
    "keycloak-26.7, bound by DPoP": (
        "keycloak-26.7",
        {**KEYCLOAK_26_7, "typ": "DPoP", "cnf": {"jkt": "x"}},
        "JWT",
        "cnf_mismatch",
    ),
    "keycloak-26.7, for several": ("keycloak-26.7", {**KEYCLOAK_26_7, "aud": [WRITER, CRM]}, "JWT", "wrong_audience"),
    "spring": ("spring", SPRING, ABSENT, "accepted"),
    "spring, scope as a string": ("spring", {**SPRING, "scope": "docs.read"}, ABSENT, "malformed_token"),
    "spring, an ID token": ("spring", {**SPRING, "nonce": "n"}, ABSENT, "token_type"),
    "spring, an ID token by its hash": ("spring", {**SPRING, "at_hash": "h"}, ABSENT, "token_type"),
    "spring, a security event": ("spring", {**SPRING, "events": {}}, ABSENT, "token_type"),
    "spring, a proof": ("spring", SPRING, "dpop+jwt", "token_type"),
    "spring, a JWT-SVID": ("spring", {**SPRING, "sub": PLANNER}, ABSENT, "token_type"),
    "spring, a workload's typed access token": ("spring", {**SPRING, "sub": PLANNER}, "at+jwt", "accepted"),
    "zitadel": ("zitadel", ZITADEL, "JWT", "accepted"),
    "zitadel, a workload with a client": ("zitadel", {**ZITADEL, "sub": PLANNER}, "JWT", "accepted"),
    "zitadel, scope as a string": ("zitadel", {**ZITADEL, "scp": "docs.read"}, "JWT", "accepted"),
    "zitadel, untyped": ("zitadel", ZITADEL, ABSENT, "token_type"),
    "entra": ("entra", ENTRA, "JWT", "alg_not_allowed"),
    "id token": ("oidc-id-token", ID_TOKEN, "JWT", "accepted"),
    "id token, untyped": ("oidc-id-token", ID_TOKEN, ABSENT, "accepted"),
    "id token of Keycloak": ("oidc-id-token", {**ID_TOKEN, "typ": "ID"}, "JWT", "accepted"),
    "id token, an access token": ("oidc-id-token", ID_TOKEN, "at+jwt", "token_type"),
    "id token, an access token of Keycloak": ("oidc-id-token", {**ID_TOKEN, "typ": "Bearer"}, "JWT", "token_type"),
    "id token, a logout token": ("oidc-id-token", {**ID_TOKEN, "events": {}}, "JWT", "token_type"),
    "id token for another client": ("oidc-id-token", {**ID_TOKEN, "aud": CRM}, "JWT", "wrong_audience"),
    "id token for two clients": ("oidc-id-token", {**ID_TOKEN, "aud": [WRITER, CRM]}, "JWT", "wrong_audience"),
    "id token without iat": ("oidc-id-token", changed(ID_TOKEN, {"iat": ABSENT}), "JWT", "malformed_token"),
    "access token, by azp": ("oidc-access-token", ACCESS_TOKEN, "at+jwt", "accepted"),
    "access token, by client_id": (
        "oidc-access-token",
        changed(ACCESS_TOKEN, {"azp": ABSENT, "client_id": WRITER}),
        ABSENT,
        "accepted",
    ),
    "access token, by aud": (
        "oidc-access-token",
        changed(ACCESS_TOKEN, {"azp": ABSENT, "aud": WRITER}),
        "JWT",
        "accepted",
    ),
    "access token of another client": ("oidc-access-token", {**ACCESS_TOKEN, "azp": CRM}, "JWT", "wrong_audience"),
    "access token of another client for us": (
        "oidc-access-token",
        {**ACCESS_TOKEN, "azp": CRM, "aud": WRITER},
        "JWT",
        "wrong_audience",
    ),
    "access token of nobody": (
        "oidc-access-token",
        changed(ACCESS_TOKEN, {"azp": ABSENT, "aud": ABSENT}),
        "JWT",
        "wrong_audience",
    ),
    "access token, an ID token": ("oidc-access-token", {**ACCESS_TOKEN, "nonce": "n"}, "JWT", "token_type"),
    "access token, an ID token of Keycloak": (
        "oidc-access-token",
        {**ACCESS_TOKEN, "typ": "ID"},
        "JWT",
        "token_type",
    ),
}


@pytest.mark.parametrize(("preset", "claims", "typ", "outcome"), PRESET_ROWS.values(), ids=PRESET_ROWS.keys())
def test_a_preset_takes_its_products_tokens_and_no_other_kind(
    preset: str, claims: dict[str, object], typ: object, outcome: str
) -> None:
    assert refusal(MINT.mint(claims, MINT.header(typ=typ)), profile=preset) == outcome


@pytest.mark.parametrize(
    ("preset", "claims"),
    [("keycloak", KEYCLOAK), ("keycloak-26.7", KEYCLOAK_26_7), ("spring", SPRING), ("zitadel", ZITADEL)],
)
def test_a_presets_token_names_actor_and_scope(preset: str, claims: dict[str, object]) -> None:
    typ = ABSENT if preset == "spring" else "JWT"

    token = verify(MINT.mint(claims, MINT.header(typ=typ)), profile=preset)

    assert token.actor_id == PLANNER
    assert token.scope == {"docs.read"}


AGENTS = dataclasses.replace(PRESETS["entra"], actor_table={(None, "agent"): SpiffeId(PLANNER)})


def entra(**changes: object) -> VerifiedToken:
    mint = TokenMint(algorithm="RS256")
    return verify(mint.mint(changed(ENTRA, changes), mint.header(typ="JWT", x5t="AA")), profile=AGENTS, mint=mint)


def test_an_entra_token_names_its_user_by_oid_and_its_one_actor_by_azp() -> None:
    token = entra()
    assert (token.client_id, token.scope, token.subject) == ("agent", frozenset({"docs.read"}), "o")
    assert token.actor_id == PLANNER
    assert token.chain is not None
    assert (token.chain.subjects, token.chain.raw) == (("agent",), {"sub": "agent"})


def test_an_entra_client_that_is_not_in_the_table_is_nobody() -> None:
    assert entra(azp="another").actor_id is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"idtyp": "app"}, "token_type", id="an app's own token"),
        pytest.param({"idtyp": ABSENT}, "token_type", id="a token of no kind"),
        pytest.param({"xms_act_fct": "3"}, "token_type", id="an actor that is no agent"),
        pytest.param({"xms_act_fct": "111"}, "token_type", id="a facet that only begins alike"),
        pytest.param({"xms_act_fct": ABSENT}, "token_type", id="no facets"),
        pytest.param({"xms_act_fct": 11}, "token_type", id="facets that are no text"),
        pytest.param({"xms_sub_fct": "3 13"}, "token_type", id="a user account of the agent's own"),
        pytest.param({"xms_sub_fct": ["11"]}, "token_type", id="an agent as its own subject"),
        pytest.param({"xms_sub_fct": 13}, "token_type", id="the subject's facets are no text"),
        pytest.param({"oid": ABSENT}, "malformed_token", id="no oid"),
        pytest.param({"act": {"sub": "x"}}, "act_malformed", id="two claims that name an actor"),
    ],
)
def test_another_token_of_entra_is_no_delegation(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Denied) as caught:
        entra(**changes)
    assert caught.value.reason == reason


def test_facets_may_be_a_list_and_unknown_ones_say_nothing() -> None:
    assert entra(xms_act_fct=["11", "3"], xms_sub_fct=["1", {}]).actor_id == PLANNER
    assert entra(xms_sub_fct="3 113").actor_id == PLANNER


def test_a_client_whose_name_is_a_spiffe_id_can_be_the_actor() -> None:
    by_client = dataclasses.replace(PRESETS["sts"], actor=ActorForm.CLIENT)
    claims = MINT.claims(client_id=PLANNER, act=ABSENT)
    assert verify(MINT.mint(claims), profile=by_client).actor_id == PLANNER
    assert verify(MINT.mint({**claims, "client_id": "planner"}), profile=by_client).actor_id is None
    assert refusal(MINT.mint(MINT.claims(client_id=PLANNER)), profile=by_client) == "act_malformed"


def test_the_leeway_is_the_profiles() -> None:
    strict = dataclasses.replace(PRESETS["sts"], leeway_s=0)

    assert refusal(MINT.mint(MINT.claims(exp=NOW)), profile=strict) == "token_expired"


NAMES = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "act", "cnf", "txn", "sub_id"]


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(NAMES), JSON, min_size=1, max_size=3))
def test_any_claims_are_verified_or_refused(changes: dict[str, object]) -> None:
    outcome = refusal_of_claims(changes)

    assert outcome == "accepted" or Reason(outcome)


def again(token: VerifiedToken, *, audience: str = WRITER, now: int = NOW, certificate: str | None = None) -> str:
    try:
        verify_again(
            token,
            issuer=MINT.trusted("sts"),
            key=MINT.key,
            audiences=frozenset({audience}),
            now=now,
            peer_certificate_sha256=certificate,
        )
    except Denied as error:
        return error.reason
    return "accepted"


def test_a_verified_token_is_checked_again_for_time_audience_and_certificate() -> None:
    bound = MINT.mint(MINT.claims(cnf={"x5t#S256": THUMBPRINT}))
    certificate = CERTIFICATE.hex()
    token = verify(bound, certificate=certificate)

    assert again(token, certificate=certificate) == "accepted"
    assert again(token, certificate=certificate, audience=CRM) == "wrong_audience"
    assert again(token, certificate=certificate, now=token.expires_at + token.leeway_s) == "token_expired"
    assert again(token, certificate=certificate, now=token.not_before - 31) == "token_not_yet_valid"
    assert again(token) == again(token, certificate="00" * 32) == "cnf_mismatch"
