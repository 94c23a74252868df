"""A token is valid between two times, with a little leeway for clocks (RFC 7519 section 4.1)."""

from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.validity import Validity, check_times, parse_validity
from tests.fakes.tokens import NOW


def outcome(claims: dict[str, object], *, leeway_s: int = 30, max_lifetime_s: int | None = None) -> str:
    try:
        validity = parse_validity(claims, leeway_s=leeway_s, now=NOW, max_lifetime_s=max_lifetime_s)
        check_times(validity, NOW)
    except Denied as error:
        return error.reason
    return "valid"


TIMES: dict[str, tuple[dict[str, object], str]] = {
    "exp ahead": ({"exp": NOW + 1}, "valid"),
    "exp now, within the leeway": ({"exp": NOW}, "valid"),
    "exp just within the leeway": ({"exp": NOW - 29}, "valid"),
    "exp at the leeway": ({"exp": NOW - 30}, "token_expired"),
    "exp a fraction within the leeway is rounded down": ({"exp": NOW - 29.5}, "token_expired"),
    "exp long ago": ({"exp": 0}, "token_expired"),
    "exp a float": ({"exp": NOW + 1.5}, "valid"),
    "exp missing": ({}, "malformed_token"),
    "exp null": ({"exp": None}, "malformed_token"),
    "exp a string": ({"exp": str(NOW + 60)}, "malformed_token"),
    "exp true": ({"exp": True}, "malformed_token"),
    "exp beyond exact integers": ({"exp": 2**53 + 2}, "malformed_token"),
    "nbf at the leeway": ({"exp": NOW + 60, "nbf": NOW + 30}, "valid"),
    "nbf past the leeway": ({"exp": NOW + 60, "nbf": NOW + 31}, "token_not_yet_valid"),
    "nbf a fraction past the leeway": ({"exp": NOW + 60, "nbf": NOW + 30.5}, "token_not_yet_valid"),
    "nbf a string": ({"exp": NOW + 60, "nbf": "0"}, "malformed_token"),
    "nbf null": ({"exp": NOW + 60, "nbf": None}, "malformed_token"),
    "iat at the leeway": ({"exp": NOW + 60, "iat": NOW + 30}, "valid"),
    "iat past the leeway": ({"exp": NOW + 60, "iat": NOW + 31}, "token_not_yet_valid"),
    "iat true": ({"exp": NOW + 60, "iat": True}, "malformed_token"),
    "iat ahead though nbf has passed": ({"exp": NOW + 60, "iat": NOW + 31, "nbf": 0}, "token_not_yet_valid"),
    "nbf ahead though iat has passed": ({"exp": NOW + 60, "iat": 0, "nbf": NOW + 31}, "token_not_yet_valid"),
    "expired and malformed": ({"exp": 0, "nbf": "x"}, "malformed_token"),
}


@pytest.mark.parametrize(("claims", "expected"), TIMES.values(), ids=TIMES.keys())
def test_times_decide_to_the_second(claims: dict[str, object], expected: str) -> None:
    assert outcome(claims) == expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iat": NOW - 60, "exp": NOW + 240}, "valid"),
        ({"iat": NOW - 60, "exp": NOW + 241}, "token_expired"),
        ({"iat": NOW - 10 * 365 * 86400, "exp": NOW + 60}, "token_expired"),
        ({"exp": NOW + 300}, "valid"),
        ({"exp": NOW + 301}, "token_expired"),
    ],
)
def test_a_token_that_lives_longer_than_allowed_counts_as_expired(claims: dict[str, object], expected: str) -> None:
    assert outcome(claims, max_lifetime_s=300) == expected


def test_the_leeway_is_the_profiles() -> None:
    assert outcome({"exp": NOW}, leeway_s=0) == "token_expired"
    assert outcome({"exp": NOW + 1, "nbf": NOW + 1}, leeway_s=0) == "token_not_yet_valid"


def test_times_are_kept_in_whole_seconds_for_the_shorter_life() -> None:
    validity = parse_validity({"exp": NOW + 9.9, "nbf": NOW - 9.9, "iat": NOW - 20.1}, leeway_s=5, now=NOW)

    assert validity == Validity(expires_at=NOW + 9, not_before=NOW - 9, issued_at=NOW - 21, leeway_s=5)


@pytest.mark.parametrize(("now", "reason"), [(NOW + 60, Reason.TOKEN_EXPIRED), (NOW - 12, Reason.TOKEN_NOT_YET_VALID)])
def test_a_verdict_is_good_for_its_time_only(now: int, reason: Reason) -> None:
    validity = Validity(expires_at=NOW + 30, not_before=NOW + 19, issued_at=None, leeway_s=30)

    with pytest.raises(Denied) as caught:
        check_times(validity, now)

    assert caught.value.reason is reason
