"""Claim values are typed and bounded; nothing is coerced (RFC 7519 section 4.1)."""

from __future__ import annotations

import pytest

from delegation_core.claims import (
    CLIENT_CLAIMS,
    audience_claim,
    is_name,
    name_claim,
    names_no_other_client,
    time_claim,
)
from delegation_core.errors import Denied, Reason

NO_NAMES: dict[str, object] = {
    "null": None,
    "a number": 1,
    "true": True,
    "an array": ["a"],
    "an object": {"a": 1},
    "empty": "",
    "2049 bytes": "a" * 2049,
    "2049 bytes in fewer characters": "é" * 1024 + "a",
    "a null byte": "a\x00",
    "a line break": "a\nb",
    "a carriage return": "a\rb",
    "a tab": "a\tb",
    "an escape": "\x1b[31m",
    "delete": "a\x7f",
    "a control character of the second block": "a\x85b",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "a mark that turns the writing direction": "a\u202eb",
    "an isolate": "a\u2066b",
    "an Arabic letter mark": "a\u061cb",
    "a right-to-left mark": "a\u200fb",
}
NO_TIMES: dict[str, object] = {
    "null": None,
    "a string": "1790000000",
    "a string with underscores": "1_790_000_000",
    "true": True,
    "false": False,
    "an array": [1790000000],
    "an object": {},
    "negative": -1,
    "slightly negative": -0.5,
    "beyond exact integers": 2**53 + 1,
    "an absurd float": 1e308,
}


@pytest.mark.parametrize(
    "value", ["a", "user 4711", "Zoë", "山田", "a" * 2048, "spiffe://acme.example/agent", "\U0001f600"]
)
def test_a_plain_string_names_something(value: str) -> None:
    assert name_claim({"sub": value}, "sub") == value


@pytest.mark.parametrize("value", NO_NAMES.values(), ids=NO_NAMES.keys())
def test_another_type_or_hidden_signs_name_nothing(value: object) -> None:
    with pytest.raises(Denied) as caught:
        name_claim({"sub": value}, "sub")

    assert caught.value.reason is Reason.MALFORMED_TOKEN
    assert not is_name(value)


@pytest.mark.parametrize("value", [0, 1790000000, 1790000000.5, 2**53])
def test_a_date_is_a_number_of_seconds(value: float) -> None:
    assert time_claim({"exp": value}, "exp") == value


@pytest.mark.parametrize("value", NO_TIMES.values(), ids=NO_TIMES.keys())
def test_another_type_or_range_is_no_date(value: object) -> None:
    with pytest.raises(Denied) as caught:
        time_claim({"exp": value}, "exp")

    assert caught.value.reason is Reason.MALFORMED_TOKEN


def test_an_absent_claim_is_none() -> None:
    assert name_claim({}, "jti") is None
    assert time_claim({}, "nbf") is None


@pytest.mark.parametrize("value", ["writer", ["writer"]])
def test_one_audience_is_a_string_or_an_array_of_one(value: object) -> None:
    assert audience_claim({"aud": value}) == "writer"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, Reason.WRONG_AUDIENCE),
        ({"aud": []}, Reason.WRONG_AUDIENCE),
        ({"aud": ["writer", "crm"]}, Reason.WRONG_AUDIENCE),
        ({"aud": ["writer", "writer"]}, Reason.WRONG_AUDIENCE),
        ({"aud": None}, Reason.MALFORMED_TOKEN),
        ({"aud": 1}, Reason.MALFORMED_TOKEN),
        ({"aud": True}, Reason.MALFORMED_TOKEN),
        ({"aud": {"writer": 1}}, Reason.MALFORMED_TOKEN),
        ({"aud": [1]}, Reason.MALFORMED_TOKEN),
        ({"aud": ["writer", None]}, Reason.MALFORMED_TOKEN),
        ({"aud": [["writer"]]}, Reason.MALFORMED_TOKEN),
    ],
    ids=str,
)
def test_no_audience_several_or_another_type_is_refused(claims: dict[str, object], reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        audience_claim(claims)

    assert caught.value.reason is reason


@pytest.mark.parametrize("claim", CLIENT_CLAIMS)
@pytest.mark.parametrize("other", ["other-app", "FRONT-APP", "front-app ", "", None, ["front-app"], {}])
def test_a_claim_that_names_another_client_is_found_beside_one_that_agrees(claim: str, other: object) -> None:
    agreeing: dict[str, object] = dict.fromkeys(CLIENT_CLAIMS, "front-app")
    assert names_no_other_client(agreeing, "front-app")
    assert not names_no_other_client(agreeing | {claim: other}, "front-app")
    assert names_no_other_client({}, "front-app")
