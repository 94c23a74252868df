from __future__ import annotations

from typing import Any

import pytest

from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.messages import Answer, Held, Place, Request, read_answer

TOKEN = Held("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "subject", "urn:ietf:params:oauth:token-type:access_token")


def request(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "name": "plain exchange",
        "place": Place.TOKEN,
        "client": TestClient(client_id="agent-a", method=Method.BASIC, secret="s3cret-word"),
        "form": (("subject_token", TOKEN), ("subject_token_type", TOKEN.type), ("scope", "a b")),
    }
    return Request(**{**given, **changes})


def test_a_request_is_sent_as_it_is_and_shown_without_the_token() -> None:
    one = request()
    assert one.pairs == [("subject_token", TOKEN.value), ("subject_token_type", TOKEN.type), ("scope", "a b")]
    assert one.describe() == (
        "POST token as agent-a (client_secret_basic): subject_token=<subject, cc529d9b>"
        " subject_token_type=access_token scope=a+b"
    )
    assert "subject_token=<subject> " in one.describe(fingerprints=False)
    assert "s3cret" not in repr(one) + one.describe()
    assert TOKEN.value not in repr(one)


def test_a_spoiled_credential_is_shown_as_such() -> None:
    assert "(a wrong credential)" in request(wrong=True).describe()
    assert "(no credential)" in request(bare=True).describe()


@pytest.mark.parametrize(
    ("status", "body", "told", "issued"),
    [
        (200, b'{"access_token": "t"}', "200", "t"),
        (200, b'{"access_token": "t", "error": "invalid_request"}', "200 invalid_request", None),
        (200, b'{"access_token": 7}', "200", None),
        (200, b"[]", "200", None),
        (201, b'{"access_token": "t"}', "201", None),
        (400, b'{"error": "invalid_grant", "error_description": "secret text"}', "400 invalid_grant", None),
        (400, b'{"error": "Not A Code <b>"}', "400", None),
        (400, b'{"error": ["x"]}', "400", None),
        (401, b"", "401 with an empty body", None),
        (500, b"<html>", "500", None),
        (200, b'{"access_token": "t", "access_token": "u"}', "200", None),
        (200, b"{" * 5000, "200", None),
    ],
)
def test_any_answer_is_read(status: int, body: bytes, told: str, issued: str | None) -> None:
    answer = read_answer(status, body, at=1.0)
    assert (answer.told, answer.issued) == (told, issued)


def test_no_answer_says_why() -> None:
    answer = Answer(trouble="the connection failed")
    assert answer.told == "no answer (the connection failed)"
    assert answer.busy
    assert Answer(status=429).busy
    assert not Answer(status=500).busy
