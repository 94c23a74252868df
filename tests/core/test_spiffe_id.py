"""SPIFFE IDs are valid by the grammar or refused (SPIFFE-ID section 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain

VALID = {
    "an ordinary ID": "spiffe://acme.example/agent/writer",
    "a short path": "spiffe://acme.example/a",
    "all characters": "spiffe://a-b_c.9/Aa0.-_/...",
    "a domain that looks like an address": "spiffe://192.0.2.7/agent",
    "the longest domain": f"spiffe://{'a' * 255}/agent",
    "the longest ID": f"spiffe://acme.example/{'a' * (2048 - 22)}",
    "three dots are a segment": "spiffe://acme.example/...",
}
INVALID = {
    "empty": "",
    "no scheme": "acme.example/agent",
    "another scheme": "https://acme.example/agent",
    "an upper-case scheme": "SPIFFE://acme.example/agent",
    "one slash": "spiffe:/acme.example/agent",
    "white space before": " spiffe://acme.example/agent",
    "a newline after": "spiffe://acme.example/agent\n",
    "no trust domain": "spiffe:///agent",
    "an upper-case domain": "spiffe://Acme.example/agent",
    "user information": "spiffe://user@acme.example/agent",
    "a port": "spiffe://acme.example:443/agent",
    "an encoded domain": "spiffe://acme%2eexample/agent",
    "a domain in another alphabet": "spiffe://\u0430cme.example/agent",
    "a domain of 256 bytes": f"spiffe://{'a' * 256}/agent",
    "no path": "spiffe://acme.example",
    "an empty path": "spiffe://acme.example/",
    "an empty segment": "spiffe://acme.example//agent",
    "a slash at the end": "spiffe://acme.example/agent/",
    "a dot segment": "spiffe://acme.example/./agent",
    "a parent segment": "spiffe://acme.example/agent/../writer",
    "a parent segment at the end": "spiffe://acme.example/agent/..",
    "an encoded segment": "spiffe://acme.example/agent%2fwriter",
    "a query": "spiffe://acme.example/agent?x=1",
    "a fragment": "spiffe://acme.example/agent#x",
    "a backslash": "spiffe://acme.example/agent\\writer",
    "a null byte": "spiffe://acme.example/agent\x00",
    "another alphabet": "spiffe://acme.example/\u0430gent",
    "digits of another script": "spiffe://acme.example/agent\u0661",
    "2049 bytes": f"spiffe://acme.example/{'a' * (2049 - 22)}",
}


@pytest.mark.parametrize("text", VALID.values(), ids=VALID.keys())
def test_a_valid_id_is_the_text_itself(text: str) -> None:
    assert SpiffeId(text) == text


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID.keys())
def test_any_departure_from_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(SpiffeIdError) as caught:
        SpiffeId(text)

    assert not text or text not in str(caught.value)


def test_a_trust_domain_alone_is_told_as_no_workload() -> None:
    with pytest.raises(SpiffeIdError, match="has a path"):
        SpiffeId("spiffe://acme.example")


def test_an_id_knows_its_trust_domain_and_path() -> None:
    spiffe_id = SpiffeId("spiffe://acme.example/agent/writer")

    assert spiffe_id.trust_domain == TrustDomain("acme.example")
    assert spiffe_id.path == "/agent/writer"


def test_ids_that_differ_in_case_are_different() -> None:
    assert SpiffeId("spiffe://acme.example/agent") != SpiffeId("spiffe://acme.example/Agent")


@pytest.mark.parametrize("name", ["", "Acme", "a b", "a/b", "a:1", "a\n", "é", "a" * 256])
def test_a_trust_domain_by_another_grammar_is_refused(name: str) -> None:
    with pytest.raises(SpiffeIdError):
        TrustDomain(name)


@given(st.text(max_size=40) | st.from_regex(r"spiffe://[ -~]{0,30}", fullmatch=True))
def test_any_text_is_an_id_or_an_error(text: str) -> None:
    try:
        spiffe_id = SpiffeId(text)
    except SpiffeIdError:
        return

    assert spiffe_id == f"spiffe://{spiffe_id.trust_domain}{spiffe_id.path}"
