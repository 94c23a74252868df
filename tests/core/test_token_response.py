from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.rfc8693 import (
    MAX_RESPONSE_BYTES,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_JWT,
    ClientCredentialsRequest,
    ExchangeRequest,
    parse_response,
)
from delegation_core.token_endpoint import build_error, build_response
from delegation_core.token_response import parse_answer

JSON = "application/json"
REQUESTED = ExchangeRequest(
    subject_token="s",
    subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    scope=frozenset({"crm.read", "crm.write"}),
)
ANSWER: dict[str, Any] = {
    "access_token": "issued.token.s",
    "issued_token_type": TOKEN_TYPE_ACCESS_TOKEN,
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "crm.read",
}


def answer(**changes: Any) -> bytes:
    return json.dumps(ANSWER | changes).encode()


def without(name: str) -> bytes:
    return json.dumps({member: value for member, value in ANSWER.items() if member != name}).encode()


@pytest.mark.parametrize(
    ("body", "content_type", "expires_in", "scope"),
    [
        pytest.param(answer(), JSON, 300, {"crm.read"}, id="plain"),
        pytest.param(answer(), "application/json;charset=UTF-8", 300, {"crm.read"}, id="charset"),
        pytest.param(answer(token_type="bearer"), JSON, 300, {"crm.read"}, id="token_type has no case"),
        pytest.param(without("expires_in"), JSON, None, {"crm.read"}, id="no expires_in"),
        pytest.param(without("scope"), JSON, 300, None, id="no scope"),
        pytest.param(answer(scope="crm.write crm.read"), JSON, 300, {"crm.read", "crm.write"}, id="all of the scope"),
        pytest.param(answer(foo={"bar": 1}), JSON, 300, {"crm.read"}, id="unknown members are ignored"),
    ],
)
def test_a_success_is_read(body: bytes, content_type: str, expires_in: int | None, scope: set[str] | None) -> None:
    response = parse_response(200, content_type, body, requested=REQUESTED)
    assert response.access_token == "issued.token.s"
    assert response.issued_token_type == TOKEN_TYPE_ACCESS_TOKEN
    assert response.expires_in == expires_in
    assert (response.scope is None) == (scope is None)
    assert set(response.scope or ()) == (scope or set())
    assert "issued.token.s" not in repr(response)


def test_an_answer_may_be_as_large_as_its_limit() -> None:
    body = answer(x="")
    padded = answer(x="y" * (MAX_RESPONSE_BYTES - len(body)))
    assert len(padded) == MAX_RESPONSE_BYTES
    assert parse_response(200, JSON, padded, requested=REQUESTED).expires_in == 300


def test_any_scope_is_taken_if_none_was_asked_for() -> None:
    response = parse_response(200, JSON, answer(scope="mail.send"), requested=replace(REQUESTED, scope=None))
    assert response.scope == frozenset({"mail.send"})


BAD = Reason.STS_BAD_RESPONSE


@pytest.mark.parametrize(
    ("status", "content_type", "body", "reason"),
    [
        pytest.param(200, None, answer(), BAD, id="no media type"),
        pytest.param(200, "text/html", answer(), BAD, id="another media type"),
        pytest.param(200, "application/jwt", answer(), BAD, id="a media type that is nearly JSON"),
        pytest.param(200, JSON, b"", BAD, id="empty"),
        pytest.param(200, JSON, b"[]", BAD, id="no object"),
        pytest.param(200, JSON, answer()[:-1], BAD, id="cut off"),
        pytest.param(200, JSON, answer() + b"x", BAD, id="trailing bytes"),
        pytest.param(200, JSON, answer()[:-1] + b',"scope":"crm.read"}', BAD, id="two equal members"),
        pytest.param(200, JSON, answer(x="y" * MAX_RESPONSE_BYTES), Reason.STS_TOO_LARGE, id="too large"),
        pytest.param(200, JSON, without("access_token"), BAD, id="no access_token"),
        pytest.param(200, JSON, answer(access_token=""), BAD, id="empty access_token"),
        pytest.param(200, JSON, answer(access_token=None), BAD, id="access_token null"),
        pytest.param(200, JSON, answer(access_token=["a"]), BAD, id="access_token of another type"),
        pytest.param(200, JSON, answer(access_token="a\r\nb: c"), BAD, id="a line break in access_token"),
        pytest.param(200, JSON, answer(access_token="a b"), BAD, id="a space in access_token"),
        pytest.param(200, JSON, without("issued_token_type"), BAD, id="no issued_token_type"),
        pytest.param(
            200, JSON, answer(issued_token_type=TOKEN_TYPE_JWT), Reason.STS_TOKEN_TYPE, id="another issued_token_type"
        ),
        pytest.param(
            200,
            JSON,
            answer(issued_token_type=TOKEN_TYPE_ACCESS_TOKEN.upper()),
            Reason.STS_TOKEN_TYPE,
            id="issued_token_type has a case",
        ),
        pytest.param(200, JSON, without("token_type"), BAD, id="no token_type"),
        pytest.param(200, JSON, answer(token_type="DPoP"), Reason.STS_TOKEN_TYPE, id="DPoP"),
        pytest.param(200, JSON, answer(token_type="N_A"), Reason.STS_TOKEN_TYPE, id="N_A"),
        pytest.param(200, JSON, answer(expires_in=True), BAD, id="expires_in true"),
        pytest.param(200, JSON, answer(expires_in="300"), BAD, id="expires_in as string"),
        pytest.param(200, JSON, answer(expires_in=300.5), BAD, id="expires_in as float"),
        pytest.param(200, JSON, answer(expires_in=None), BAD, id="expires_in null"),
        pytest.param(200, JSON, answer(expires_in=0), BAD, id="expires_in zero"),
        pytest.param(200, JSON, answer(expires_in=-1), BAD, id="expires_in negative"),
        pytest.param(200, JSON, answer(expires_in=2**31 + 1), BAD, id="expires_in beyond reason"),
        pytest.param(200, JSON, answer(scope="crm.read docs.read"), Reason.STS_SCOPE_WIDENED, id="scope wider"),
        pytest.param(200, JSON, answer(scope=["crm.read"]), BAD, id="scope as array"),
        pytest.param(200, JSON, answer(scope=None), BAD, id="scope null"),
        pytest.param(200, JSON, answer(scope="crm.read  crm.write"), BAD, id="scope outside the grammar"),
        pytest.param(200, JSON, answer(refresh_token="r"), BAD, id="refresh_token"),
        pytest.param(200, JSON, answer(refresh_token=None), BAD, id="refresh_token null"),
        pytest.param(200, JSON, answer(error="invalid_request"), BAD, id="error beside a token"),
        pytest.param(201, JSON, answer(), BAD, id="201"),
        pytest.param(204, None, b"", BAD, id="204"),
        pytest.param(100, None, b"", BAD, id="100"),
        pytest.param(302, JSON, answer(), Reason.STS_REDIRECT, id="302"),
        pytest.param(307, None, b"", Reason.STS_REDIRECT, id="307"),
        pytest.param(400, JSON, b'{"error":"invalid_target"}', Reason.EXCHANGE_DENIED, id="400"),
        pytest.param(400, None, b"", Reason.EXCHANGE_DENIED, id="400 without a body"),
        pytest.param(401, JSON, b'{"error":"invalid_client"}', Reason.STS_ERROR, id="401"),
        pytest.param(403, "text/html", b"<p>", Reason.STS_ERROR, id="403"),
        pytest.param(404, JSON, answer(), BAD, id="404"),
        pytest.param(429, None, b"", Reason.STS_UNAVAILABLE, id="429"),
        pytest.param(500, JSON, answer(), Reason.STS_UNAVAILABLE, id="500"),
        pytest.param(503, None, b"", Reason.STS_UNAVAILABLE, id="503"),
        pytest.param(600, None, b"", BAD, id="600"),
    ],
)
def test_any_other_answer_is_a_refused_call(status: int, content_type: str | None, body: bytes, reason: Reason) -> None:
    with pytest.raises(SidecarError) as refusal:
        parse_response(status, content_type, body, requested=REQUESTED)
    assert refusal.value.reason is reason
    assert isinstance(refusal.value, Unavailable) == (reason is Reason.STS_UNAVAILABLE)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        pytest.param(b'{"error":"invalid_target"}', "invalid_target", id="a registered code"),
        pytest.param(b'{"error":"access_denied","error_description":"eyJ"}', "access_denied", id="a code of Keycloak"),
        pytest.param(b'{"error":"interaction_required","claims":"eyJ"}', "interaction_required", id="a code of Entra"),
        pytest.param(b'{"error":"bad token eyJ"}', "an unknown error code", id="prose for a code"),
        pytest.param(b'{"error":["x"]}', "an unknown error code", id="a code of another type"),
        pytest.param(b'{"error_description":"eyJ"}', "an unknown error code", id="no code"),
        pytest.param(b"eyJ", "no readable error code", id="no JSON"),
    ],
)
def test_of_a_refusal_only_a_registered_code_is_kept(body: bytes, detail: str) -> None:
    with pytest.raises(Denied) as refusal:
        parse_response(400, JSON, body, requested=REQUESTED)
    assert refusal.value.detail == detail


@given(st.integers(100, 599), st.none() | st.just(JSON) | st.text(max_size=20), st.binary(max_size=60))
def test_any_answer_is_read_or_refused(status: int, content_type: str | None, body: bytes) -> None:
    with contextlib.suppress(SidecarError):
        assert parse_response(status, content_type, body, requested=REQUESTED).access_token
        assert status == 200


def test_what_is_built_is_parsed_back() -> None:
    built = build_response(
        access_token="a.b.c",
        expires_in=300,
        scope=frozenset({"crm.write", "crm.read"}),
        issued_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    )
    assert built["scope"] == "crm.read crm.write"
    parsed = parse_response(200, JSON, json.dumps(built).encode(), requested=REQUESTED)
    assert (parsed.access_token, parsed.expires_in, parsed.token_type) == ("a.b.c", 300, "Bearer")
    assert parsed.scope == frozenset({"crm.read", "crm.write"})


def test_an_answer_to_client_credentials_names_no_issued_token_type() -> None:
    built = build_response(access_token="a.b.c", expires_in=300, scope=frozenset({"x"}), issued_token_type=None)
    assert "issued_token_type" not in built


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (Reason.EXCHANGE_MALFORMED, 400, "invalid_request"),
        (Reason.GRANT_NOT_SUPPORTED, 400, "unsupported_grant_type"),
        (Reason.CLIENT_NOT_AUTHENTICATED, 401, "invalid_client"),
        (Reason.TARGET_UNKNOWN, 400, "invalid_target"),
        (Reason.SCOPE_REFUSED, 400, "invalid_scope"),
        (Reason.INSUFFICIENT_SCOPE, 400, "invalid_scope"),
        (Reason.TOKEN_EXPIRED, 400, "invalid_request"),
        (Reason.BAD_SIGNATURE, 400, "invalid_request"),
        (Reason.NOT_AN_ENTRY, 400, "invalid_request"),
        (Reason.TOO_LARGE, 413, "invalid_request"),
        (Reason.METHOD_REFUSED, 405, "invalid_request"),
        (Reason.KEYS_UNAVAILABLE, 503, "temporarily_unavailable"),
        (Reason.INTERNAL, 502, "server_error"),
    ],
)
def test_a_refusal_of_the_sts_has_the_standards_code(reason: Reason, status: int, code: str) -> None:
    assert build_error(Denied(reason, "secret detail")) == (
        status,
        {"error": code, "error_description": reason.answer.text},
    )


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.DELEGATION_NOT_ALLOWED, "actor_unauthorized"),
        (Reason.MAY_ACT_REFUSED, "actor_unauthorized"),
        (Reason.ACTOR_TOKEN_INVALID, "invalid_grant"),
        (Reason.TOKEN_EXPIRED, "invalid_grant"),
        (Reason.REVOKED, "invalid_grant"),
        (Reason.ACT_MALFORMED, "invalid_request"),
        (Reason.ACT_TOO_DEEP, "invalid_request"),
        (Reason.SCOPE_REFUSED, "invalid_scope"),
        (Reason.TARGET_UNKNOWN, "invalid_target"),
    ],
)
def test_by_the_actor_profile_an_untrusted_token_and_an_unauthorized_actor_have_codes_of_their_own(
    reason: Reason, code: str
) -> None:
    assert build_error(Denied(reason), actor_profile=True) == (
        400,
        {"error": code, "error_description": reason.answer.text},
    )


def test_an_unauthenticated_client_stays_one_by_the_actor_profile() -> None:
    status, body = build_error(Denied(Reason.CLIENT_NOT_AUTHENTICATED), actor_profile=True)
    assert (status, body["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_told_by_the_sts(reason: Reason) -> None:
    status, body = build_error(Denied(reason))
    assert 400 <= status <= 505
    assert status != 500
    assert isinstance(body["error"], str)


OWN = ClientCredentialsRequest(audience=("crm",), scope=frozenset({"crm.read", "crm.write"}))


def test_an_answer_to_client_credentials_has_no_issued_token_type() -> None:
    body = json.dumps({name: value for name, value in ANSWER.items() if name != "issued_token_type"}).encode()
    response = parse_response(200, JSON, body, requested=OWN)
    assert (response.access_token, response.issued_token_type) == ("issued.token.s", None)
    for wrong, reason in (
        (answer(), Reason.STS_BAD_RESPONSE),
        (body.replace(b"Bearer", b"DPoP"), Reason.STS_TOKEN_TYPE),
        (body.replace(b"crm.read", b"mail.send"), Reason.STS_SCOPE_WIDENED),
    ):
        with pytest.raises(Denied) as refusal:
            parse_response(200, JSON, wrong, requested=OWN)
        assert refusal.value.reason is reason
    with pytest.raises(Denied) as refusal:
        parse_response(200, JSON, body, requested=REQUESTED)
    assert refusal.value.reason is Reason.STS_BAD_RESPONSE


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b'{"error":"slow_down"}', Reason.EXCHANGE_DENIED),
        (200, b'{"error":"slow_down"}', Reason.STS_BAD_RESPONSE),
        (200, b"[]", Reason.STS_BAD_RESPONSE),
    ],
)
def test_an_answer_without_a_token_is_a_success_or_refused(status: int, body: bytes, reason: Reason) -> None:
    lawful = parse_answer(200, "application/json", b'{"device_code":"abc"}')
    assert lawful.text("device_code", max_chars=3) == "abc"
    with pytest.raises(Denied) as too_long:
        lawful.text("device_code", max_chars=2)
    assert too_long.value.reason is Reason.STS_TOO_LARGE
    with pytest.raises(Denied) as refused:
        parse_answer(status, "application/json", body)
    assert refused.value.reason is reason
