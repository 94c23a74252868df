"""Both ends of a token exchange: answers of an STS, and requests to ours.

The input's first line is the relevant head: ``200 application/json``, or only a media type.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    ClientCredentialsRequest,
    ExchangeRequest,
    build_exchange,
    parse_response,
)
from delegation_core.token_endpoint import build_error, parse_token_request
from tests.fuzz.properties import quiet

_FORM: Final = "application/x-www-form-urlencoded"
_ASKED: Final = ExchangeRequest(
    subject_token="a.b.c",
    subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    audience=("spiffe://acme.example/tool/crm",),
    scope=frozenset({"crm.read", "crm.write"}),
)
_ANSWERED: Final = frozenset(
    {
        Reason.EXCHANGE_DENIED,
        Reason.STS_ERROR,
        Reason.STS_REDIRECT,
        Reason.STS_TOO_LARGE,
        Reason.STS_TOKEN_TYPE,
        Reason.STS_SCOPE_WIDENED,
        Reason.STS_BAD_RESPONSE,
        Reason.STS_UNAVAILABLE,
    }
)
_ASKED_WRONGLY: Final = frozenset(
    {Reason.EXCHANGE_MALFORMED, Reason.GRANT_NOT_SUPPORTED, Reason.SCOPE_REFUSED, Reason.TARGET_UNKNOWN}
)


def sts_answer(data: bytes) -> None:
    """An answer is a bearer token of the requested type and within the requested scope, or one of our refusals."""
    head, _, body = data.partition(b"\n")
    status, _, content_type = head.decode("latin-1").partition(" ")
    code = int(status) if re.fullmatch(r"[1-5][0-9]{2}", status) else 200
    try:
        answer = parse_response(code, content_type or None, body, requested=_ASKED)
    except SidecarError as error:
        assert error.reason in _ANSWERED
        quiet(error)
        return
    assert code == 200
    assert (answer.issued_token_type, answer.token_type.lower()) == (TOKEN_TYPE_ACCESS_TOKEN, "bearer")
    assert re.fullmatch(r"[!-~]+", answer.access_token)
    assert answer.scope is None or answer.scope <= (_ASKED.scope or frozenset())
    assert answer.expires_in is None or 0 < answer.expires_in <= 2**31
    assert answer.access_token not in repr(answer) or len(answer.access_token) < 60


def token_request(data: bytes) -> None:
    """A request to our STS: parsed, built and parsed again it is the same."""
    content_type, _, body = data.partition(b"\n")
    try:
        asked = parse_token_request(body, content_type.decode("latin-1"))
    except Denied as error:
        assert error.reason in _ASKED_WRONGLY
        quiet(error)
        status, members = build_error(error)
        assert 400 <= status < 500
        assert set(members) == {"error", "error_description"}
        return
    if isinstance(asked, ClientCredentialsRequest):
        return
    assert (asked.actor_token is None) == (asked.actor_token_type is None)
    assert asked.subject_token
    if asked.scope == frozenset():  # an empty parameter counts as absent
        asked = replace(asked, scope=None)
    assert parse_token_request(build_exchange(asked), _FORM) == asked
