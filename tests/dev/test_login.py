from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar_dev.login import LoginError, LoginSettings, UserIssuer

NOW = 1_790_000_000
URL = "http://127.0.0.1:7300"
ALICE = {"grant_type": "password", "username": "alice", "client_id": "front"}
SETTINGS = LoginSettings(users={"alice": None, "bob": "sesame"}, clients=frozenset({"front", "app"}), life_s=600)


@pytest.fixture
def issuer() -> UserIssuer:
    return UserIssuer(URL, SETTINGS, clock=lambda: NOW + 0.9)


def log_in(issuer: UserIssuer, **fields: str) -> dict[str, Any]:
    return issuer.log_in(urlencode(ALICE | fields).encode())


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def code_of(issuer: UserIssuer, form: bytes) -> str:
    with pytest.raises(LoginError) as caught:
        issuer.log_in(form)
    return caught.value.code


def test_the_access_token_is_for_the_audience_with_the_scope_that_was_asked_for(issuer: UserIssuer) -> None:
    answer = log_in(issuer, audience="https://api", scope="docs.read crm.read")
    claims = claims_of(answer["access_token"])
    assert claims.pop("jti")
    assert claims == {
        "iss": URL,
        "sub": "alice",
        "aud": "https://api",
        "azp": "front",
        "client_id": "front",
        "scope": "crm.read docs.read",
        "iat": NOW,
        "exp": NOW + 600,
        "auth_time": NOW,
    }
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 600, "crm.read docs.read")


def test_the_id_token_is_for_the_client_and_holds_no_scope(issuer: UserIssuer) -> None:
    claims = claims_of(log_in(issuer, audience="https://api", scope="docs.read")["id_token"])
    assert claims.pop("jti")
    assert claims == {
        "iss": URL,
        "sub": "alice",
        "aud": "front",
        "azp": "front",
        "iat": NOW,
        "exp": NOW + 600,
        "auth_time": NOW,
    }


def test_the_two_tokens_tell_their_kinds_in_their_headers(issuer: UserIssuer) -> None:
    answer = log_in(issuer)
    kinds = [jwt.get_unverified_header(answer[name])["typ"] for name in ("access_token", "id_token")]
    assert kinds == ["at+jwt", "JWT"]


def test_without_an_audience_the_access_token_is_for_the_client_itself(issuer: UserIssuer) -> None:
    claims = claims_of(log_in(issuer)["access_token"])
    assert (claims["aud"], claims["scope"]) == ("front", "")


def test_no_two_tokens_share_an_id(issuer: UserIssuer) -> None:
    first, second = log_in(issuer), log_in(issuer)
    tokens = [answer[name] for answer in (first, second) for name in ("access_token", "id_token")]
    assert len({claims_of(token)["jti"] for token in tokens}) == 4


def test_tokens_verify_with_the_published_keys_also_after_a_rotation(issuer: UserIssuer) -> None:
    old = log_in(issuer)["id_token"]
    issuer.rotate()
    new = log_in(issuer)["id_token"]
    keys = jwt.PyJWKSet.from_dict(issuer.jwks())
    for token in (old, new):
        key = keys[jwt.get_unverified_header(token)["kid"]]
        options: Any = {"verify_exp": False, "verify_iat": False}
        assert jwt.decode(token, key, algorithms=["ES256"], audience="front", options=options)["sub"] == "alice"


def test_only_one_old_key_stays_published_and_no_private_one_ever(issuer: UserIssuer) -> None:
    issuer.rotate()
    issuer.rotate()
    keys: Any = issuer.jwks()["keys"]
    assert len(keys) == 2
    assert all(set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"} for key in keys)


def test_the_metadata_points_at_the_issuers_own_endpoints_and_says_what_it_is_for(issuer: UserIssuer) -> None:
    metadata = issuer.metadata()
    assert (metadata["issuer"], metadata["jwks_uri"]) == (URL, f"{URL}/jwks")
    assert metadata["token_endpoint"] == f"{URL}/token"
    assert metadata["development_only"] is True


def test_a_password_is_asked_of_those_who_have_one(issuer: UserIssuer) -> None:
    assert claims_of(log_in(issuer, username="bob", password="sesame")["id_token"])["sub"] == "bob"


REFUSED = {
    "nothing": (b"", "invalid_request"),
    "no form": (b"\xff=1", "invalid_request"),
    "no pairs": (b"grant_type", "invalid_request"),
    "no grant type": (b"username=alice&client_id=front", "invalid_request"),
    "another grant type": (urlencode(ALICE | {"grant_type": "client_credentials"}).encode(), "unsupported_grant_type"),
    "no client": (b"grant_type=password&username=alice", "invalid_client"),
    "unknown client": (urlencode(ALICE | {"client_id": "Front"}).encode(), "invalid_client"),
    "no user": (b"grant_type=password&client_id=front", "invalid_grant"),
    "unknown user": (urlencode(ALICE | {"username": "mallory"}).encode(), "invalid_grant"),
    "no password": (urlencode(ALICE | {"username": "bob"}).encode(), "invalid_grant"),
    "wrong password": (urlencode(ALICE | {"username": "bob", "password": "x"}).encode(), "invalid_grant"),
    "two users": (urlencode(ALICE).encode() + b"&username=bob", "invalid_request"),
    "two equal users": (urlencode(ALICE).encode() + b"&username=alice", "invalid_request"),
    "broken scope": (urlencode(ALICE | {"scope": "a  b"}).encode(), "invalid_scope"),
    "audience with a control character": (urlencode(ALICE | {"audience": "a\nb"}).encode(), "invalid_target"),
    "audience too long": (urlencode(ALICE | {"audience": "a" * 2049}).encode(), "invalid_target"),
}


@pytest.mark.parametrize(("form", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_login_gets_no_token(issuer: UserIssuer, form: bytes, code: str) -> None:
    assert code_of(issuer, form) == code


def test_nobody_asks_for_an_actor_by_a_form_field(issuer: UserIssuer) -> None:
    answer = log_in(issuer, act='{"sub": "x"}', sub="bob", exp="9999999999")
    for name in ("access_token", "id_token"):
        claims = claims_of(answer[name])
        assert "act" not in claims
        assert (claims["sub"], claims["exp"]) == ("alice", NOW + 600)


def test_settings_do_not_show_passwords() -> None:
    assert "sesame" not in repr(SETTINGS)


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from([*ALICE, "scope", "x"]), st.text(max_size=20)).map(
        lambda fields: urlencode(fields).encode()
    )
)
def test_any_form_logs_in_or_is_refused(form: bytes) -> None:
    issuer = UserIssuer(URL, SETTINGS)
    try:
        answer = issuer.log_in(form)
    except LoginError:
        return
    assert answer["access_token"]
