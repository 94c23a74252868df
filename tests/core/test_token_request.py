from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.rfc8693 import (
    GRANT_TYPE,
    MAX_REQUEST_BYTES,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_JWT,
    ClientCredentialsRequest,
    ExchangeRequest,
    build_client_credentials,
    build_exchange,
)
from delegation_core.token_endpoint import parse_token_request

FORM = "application/x-www-form-urlencoded"
REQUEST = ExchangeRequest(
    subject_token="subject.token.s",
    subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    actor_token="actor.token.s",
    actor_token_type=TOKEN_TYPE_JWT,
    requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    audience=("spiffe://acme.example/tool/crm",),
    scope=frozenset({"crm.read", "docs.read"}),
)
MINIMAL = b"grant_type=" + GRANT_TYPE.encode() + b"&subject_token=s&subject_token_type=t"


def test_an_exchange_is_built_as_the_standard_says() -> None:
    assert build_exchange(REQUEST) == (
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"
        b"&subject_token=subject.token.s"
        b"&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"
        b"&actor_token=actor.token.s&actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt"
        b"&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"
        b"&scope=crm.read+docs.read&audience=spiffe%3A%2F%2Facme.example%2Ftool%2Fcrm"
    )


def test_an_actor_token_without_its_type_is_not_built() -> None:
    for half in (replace(REQUEST, actor_token=None), replace(REQUEST, actor_token_type=None)):
        with pytest.raises(ValueError, match="must come together"):
            build_exchange(half)


SCOPES = st.frozensets(st.text(st.sampled_from("abc.:/#"), min_size=1, max_size=5), min_size=1, max_size=4)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
OPTIONAL = st.none() | TEXTS


@given(
    st.builds(
        ExchangeRequest,
        subject_token=TEXTS,
        subject_token_type=TEXTS,
        requested_token_type=OPTIONAL,
        audience=st.lists(TEXTS, max_size=3).map(tuple),
        resource=st.lists(st.sampled_from(["https://a.example/x?y", "spiffe://acme/x"]), max_size=2).map(tuple),
        scope=st.none() | SCOPES,
    ),
    st.none() | st.tuples(TEXTS, TEXTS),
)
@settings(max_examples=100)
def test_what_is_built_is_parsed_back(request: ExchangeRequest, actor: tuple[str, str] | None) -> None:
    if actor:
        request = replace(request, actor_token=actor[0], actor_token_type=actor[1])
    assert parse_token_request(build_exchange(request), FORM) == request


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            MINIMAL + b"&actor_token=&actor_token_type=&scope=&audience=&resource=",
            ExchangeRequest(subject_token="s", subject_token_type="t"),
            id="empty parameters are absent",
        ),
        pytest.param(
            MINIMAL + b"&client_id=x&foo=bar",
            ExchangeRequest(subject_token="s", subject_token_type="t"),
            id="unknown parameters are ignored",
        ),
        pytest.param(
            MINIMAL + b"&audience=a&audience=b&resource=https%3A%2F%2Fr.example%2F%3Fq",
            ExchangeRequest(
                subject_token="s",
                subject_token_type="t",
                audience=("a", "b"),
                resource=("https://r.example/?q",),
            ),
            id="targets repeat",
        ),
        pytest.param(
            b"grant_type=client_credentials&scope=crm.read&audience=a&subject_token=ignored",
            ClientCredentialsRequest(audience=("a",), scope=frozenset({"crm.read"})),
            id="client credentials",
        ),
    ],
)
def test_a_request_is_read_tolerantly(body: bytes, expected: object) -> None:
    assert parse_token_request(body, f"{FORM};charset=UTF-8") == expected


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        pytest.param(MINIMAL, None, Reason.EXCHANGE_MALFORMED, id="no media type"),
        pytest.param(MINIMAL, "application/json", Reason.EXCHANGE_MALFORMED, id="another media type"),
        pytest.param(MINIMAL + b"&scope=a&scope=b", FORM, Reason.EXCHANGE_MALFORMED, id="repeated scope"),
        pytest.param(MINIMAL + b"&subject_token=s", FORM, Reason.EXCHANGE_MALFORMED, id="repeated subject token"),
        pytest.param(MINIMAL + b"&x=%ff", FORM, Reason.EXCHANGE_MALFORMED, id="no UTF-8"),
        pytest.param(MINIMAL + b"&x=" + b"y" * MAX_REQUEST_BYTES, FORM, Reason.EXCHANGE_MALFORMED, id="too large"),
        pytest.param(b"subject_token=s&subject_token_type=t", FORM, Reason.EXCHANGE_MALFORMED, id="no grant type"),
        pytest.param(b"grant_type=&subject_token=s", FORM, Reason.EXCHANGE_MALFORMED, id="empty grant type"),
        pytest.param(b"grant_type=password&username=a", FORM, Reason.GRANT_NOT_SUPPORTED, id="another grant"),
        pytest.param(MINIMAL.replace(b"&subject_token=s", b""), FORM, Reason.EXCHANGE_MALFORMED, id="no subject token"),
        pytest.param(
            MINIMAL.replace(b"token=s&", b"token=&"), FORM, Reason.EXCHANGE_MALFORMED, id="empty subject token"
        ),
        pytest.param(
            MINIMAL.replace(b"&subject_token_type=t", b""), FORM, Reason.EXCHANGE_MALFORMED, id="no subject token type"
        ),
        pytest.param(MINIMAL + b"&actor_token=a", FORM, Reason.EXCHANGE_MALFORMED, id="actor token without type"),
        pytest.param(MINIMAL + b"&actor_token_type=a", FORM, Reason.EXCHANGE_MALFORMED, id="type without actor token"),
        pytest.param(
            MINIMAL + b"&actor_token=&actor_token_type=a",
            FORM,
            Reason.EXCHANGE_MALFORMED,
            id="type with an empty token",
        ),
        pytest.param(MINIMAL + b"&scope=a++b", FORM, Reason.SCOPE_REFUSED, id="doubled space in scope"),
        pytest.param(MINIMAL + b"&scope=a%22", FORM, Reason.SCOPE_REFUSED, id="scope outside the grammar"),
        pytest.param(MINIMAL + b"&resource=crm", FORM, Reason.TARGET_UNKNOWN, id="relative resource"),
        pytest.param(MINIMAL + b"&resource=https://a/%23b", FORM, Reason.TARGET_UNKNOWN, id="resource with a fragment"),
    ],
)
def test_an_ambiguous_or_broken_request_is_refused(body: bytes, content_type: str | None, reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        parse_token_request(body, content_type)
    assert refusal.value.reason is reason


@given(st.binary(max_size=60).map(lambda tail: MINIMAL + b"&" + tail))
def test_any_body_is_a_request_or_refused(body: bytes) -> None:
    """A later parameter never replaces an earlier one."""
    with contextlib.suppress(Denied):
        request = parse_token_request(body, FORM)
        assert isinstance(request, ExchangeRequest)
        assert request.subject_token == "s"


def test_a_request_shows_no_token() -> None:
    assert "token.s" not in repr(REQUEST)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("spiffe://acme.example/tool/crm", {"resource": ("spiffe://acme.example/tool/crm",)}),
        ("crm", {"audience": ("crm",)}),
    ],
)
def test_client_credentials_name_one_target_and_are_parsed_again(
    target: str, named: dict[str, tuple[str, ...]]
) -> None:
    form = build_client_credentials(ClientCredentialsRequest(audience=(target,), scope=frozenset({"b", "a"})))
    assert form.startswith(b"grant_type=client_credentials&scope=a+b&")
    assert parse_token_request(form, FORM) == ClientCredentialsRequest(scope=frozenset({"a", "b"}), **named)
