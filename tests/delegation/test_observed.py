from __future__ import annotations

import base64

import pytest

from sidecar.delegation.observed import RELAXED, is_jwt, issuers_in, observed_bearer
from sidecar.errors import Denied, Reason
from tests.delegation.world import INBOUND_CLAIMS, STS, signed

TOKEN = signed(INBOUND_CLAIMS).raw


@pytest.mark.parametrize(
    "credential",
    ["sk-live-1", "a.b", "xoxb-1.2.3", "SG.abc.def", "eyJhbGciOiJub25lIn0", "AIza.", ".", "..", "\u00e9.x.y", ""],
)
def test_what_has_no_head_of_a_jwt_is_none(credential: str) -> None:
    assert not is_jwt(credential)


@pytest.mark.parametrize(
    "credential",
    [
        TOKEN,
        TOKEN.rpartition(".")[0],
        f"{TOKEN}.x.y",
        "eyJhbGciOiJub25lIn0..",
        "eyJhbGciOiJub25lIn0=.x.y",
        base64.urlsafe_b64encode(b" \n{}").decode() + ".x.y",
    ],
)
def test_what_begins_as_a_jwt_is_one_however_broken(credential: str) -> None:
    assert is_jwt(credential)


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"session={TOKEN}; see www.acme.example",
        f"v1.{TOKEN}.tail",
        TOKEN.partition(".")[2],
        TOKEN.split(".")[1],
        "e30." + base64.urlsafe_b64encode(f'{{"iss":"x","iss":"{STS}","iss":1}}'.encode()).decode() + ".",
    ],
    ids=["alone", "within", "with-a-prefix", "without-its-head", "its-claims-alone", "doubled-member"],
)
def test_the_issuer_of_a_token_is_found_within_a_text(text: str) -> None:
    assert STS in issuers_in(text)


def test_a_long_text_is_scanned_once() -> None:
    text = "a" * 1_000_000  # a search that begins again at each character would not end
    assert issuers_in(f"{text} {TOKEN}") == {STS}
    assert not is_jwt(text)


@pytest.mark.parametrize("text", ["", "sk-live-1", "www.acme.example", STS, "eyJhbGciOiJub25lIn0.x.y", "W10.WzFd."])
@pytest.mark.parametrize("nested", ["", ".eyJzdWJfaWQiOnsiaXNzIjoieCJ9fQ.", ".W3siaXNzIjoieCJ9XQ."])
def test_what_is_no_token_has_no_issuer(text: str, nested: str) -> None:
    assert issuers_in(f"{text} e30{nested}") == set()


def test_the_closed_list_is_the_documented_one() -> None:
    assert {
        "no_token", "malformed_token", "act_missing", "actor_mismatch", "wrong_audience", "insufficient_scope",
        "policy_denied",
    } == RELAXED  # fmt: skip


@pytest.mark.parametrize("reason", sorted(set(Reason) - RELAXED))
def test_any_other_reason_stays(reason: Reason) -> None:
    with pytest.raises(Denied, match=reason):
        observed_bearer(Denied(reason), [f"Bearer {TOKEN}".encode()])


def test_a_jwt_that_is_shown_is_read_and_another_credential_is_not() -> None:
    denied = Denied(Reason.MALFORMED_TOKEN)
    assert observed_bearer(denied, [b"Bearer sk-live-1"]) is None
    assert observed_bearer(Denied(Reason.NO_TOKEN), []) is None
    found = observed_bearer(Denied(Reason.ACT_MISSING), [f"Bearer {TOKEN}".encode()])
    assert found is not None
    assert found.raw == TOKEN
    with pytest.raises(Denied, match="malformed_token"):
        observed_bearer(denied, [f"Bearer {TOKEN}.x".encode()])
