"""Answers that come back through a browser: anybody can send one, so each is read in one way or refused."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from delegation_core.authorization_response import code_of
from delegation_core.errors import Denied, Reason

ISSUER = "https://login.example"
STATE = "s" * 43
LAWFUL = {"code": "c0de", "state": STATE, "iss": ISSUER}


def read(query: str, *, names_issuer: bool = True) -> str:
    return code_of(query, state=STATE, issuer=ISSUER, names_issuer=names_issuer)


def with_(**changes: str | None) -> str:
    return urlencode({name: value for name, value in {**LAWFUL, **changes}.items() if value is not None})


@pytest.mark.parametrize("query", [with_(), f"?{with_()}", with_(session_state="x"), with_(scope="a b")])
def test_the_code_of_the_answer_is_returned(query: str) -> None:
    assert read(query) == "c0de"


def test_a_server_that_does_not_name_itself_need_not() -> None:
    assert read(with_(iss=None), names_issuer=False) == "c0de"
    assert read(with_(), names_issuer=False) == "c0de"


REFUSED: dict[str, tuple[str, Reason]] = {
    "another state": (with_(state="t" * 43), Reason.LOGIN_STATE_MISMATCH),
    "part of the state": (with_(state="s" * 42), Reason.LOGIN_STATE_MISMATCH),
    "no state": (with_(state=None), Reason.LOGIN_STATE_MISMATCH),
    "an empty state": (with_(state=""), Reason.LOGIN_STATE_MISMATCH),
    "a state that is no ASCII": (with_(state="ß"), Reason.LOGIN_STATE_MISMATCH),
    "two states": (f"{with_()}&state={STATE}", Reason.LOGIN_MALFORMED),
    "two codes": (f"{with_()}&code=other", Reason.LOGIN_MALFORMED),
    "a code and an error": (with_(error="access_denied"), Reason.LOGIN_MALFORMED),
    "neither": (with_(code=None), Reason.LOGIN_MALFORMED),
    "an empty code": (with_(code=""), Reason.LOGIN_MALFORMED),
    "a code of several lines": (with_(code="a\nb"), Reason.LOGIN_MALFORMED),
    "a code without end": (with_(code="c" * 4097), Reason.LOGIN_MALFORMED),
    "another issuer": (with_(iss="https://evil.example"), Reason.LOGIN_ISSUER_MISMATCH),
    "its issuer with a slash": (with_(iss=f"{ISSUER}/"), Reason.LOGIN_ISSUER_MISMATCH),
    "no issuer where it names itself": (with_(iss=None), Reason.LOGIN_ISSUER_MISMATCH),
    "the user refused": (with_(code=None, error="access_denied"), Reason.LOGIN_DENIED),
    "an error of another's": (
        with_(code=None, error="access_denied", iss="https://evil.example"),
        Reason.LOGIN_ISSUER_MISMATCH,
    ),
    "no query": ("code=%", Reason.LOGIN_MALFORMED),
    "no ASCII": ("code=ä", Reason.LOGIN_MALFORMED),
    "too long": (with_(x="y" * 8192), Reason.LOGIN_MALFORMED),
}


@pytest.mark.parametrize(("query", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_an_answer_with_one_fact_changed_is_refused(query: str, reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        read(query)
    assert caught.value.reason is reason


def test_another_issuer_is_refused_also_where_none_need_be_named() -> None:
    with pytest.raises(Denied) as caught:
        read(with_(iss="https://evil.example"), names_issuer=False)
    assert caught.value.reason is Reason.LOGIN_ISSUER_MISMATCH


@pytest.mark.parametrize(("error", "told"), [("access_denied", "access_denied"), ("s3cret", "an unknown error code")])
def test_of_an_error_only_a_registered_code_is_told(error: str, told: str) -> None:
    with pytest.raises(Denied) as caught:
        read(with_(code=None, error=error, error_description="s3cret"))
    assert caught.value.detail == told
