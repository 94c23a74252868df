"""Rows of a deny list that can match nothing are found, and rows that may match are not."""

from __future__ import annotations

import pytest

from delegation_core.deny_names import MAX_UNMATCHED, Unmatched, domains_of, unmatched
from delegation_core.policy import Deny
from delegation_core.spiffe_id import TrustDomain
from tests.core.world import IDP, STS, STS_TRUST


def found(*, actor: str | None = None, issuer: str | None = None, subject: str = "alice") -> list[Unmatched]:
    """Return what is found of a list with one row."""
    rows = Deny(
        subjects=frozenset() if actor is not None else frozenset({(issuer, subject)}),
        actors=frozenset() if actor is None else frozenset({actor}),
        jtis=frozenset({"jti"}),
        txns=frozenset({"txn"}),
    )
    return list(unmatched(rows, domains={"acme.example", "partner.example"}, issuers={STS, IDP}))


@pytest.mark.parametrize(
    ("actor", "fix"),
    [
        ("spiffe://acme.example/agent/writer", None),
        ("spiffe://partner.example/agent/other", None),
        ("spiffe://acme.exampl/agent/writer", "did you mean acme.example?"),
        ("spiffe://acme-example/agent/writer", "did you mean acme.example?"),
        ("spiffe://elsewhere.test/agent/writer", "correct it, or remove the row"),
    ],
)
def test_a_workload_of_an_unknown_trust_domain_is_found(actor: str, fix: str | None) -> None:
    told = found(actor=actor)
    assert [one.fix for one in told] == ([fix] if fix else [])
    assert [one.row for one in told] == ([f"actor {actor}"] if fix else [])


@pytest.mark.parametrize(
    ("issuer", "fix"),
    [
        pytest.param(None, None, id="of any issuer"),
        pytest.param(IDP, None, id="as the settings write it"),
        pytest.param("https://of-the-token-service.test", None, id="that only the token service may know"),
        pytest.param(f"{IDP}/", f"write {IDP}", id="a slash at its end"),
        pytest.param(IDP.upper(), f"write {IDP}", id="another case"),
        pytest.param(IDP.replace("login", "l%6Fgin"), f"write {IDP}", id="percent-encoding"),
        pytest.param(IDP.replace("l", "\uff4c"), f"write {IDP}", id="another Unicode form"),
    ],
)
def test_another_spelling_of_a_known_issuer_is_found(issuer: str | None, fix: str | None) -> None:
    assert [one.fix for one in found(issuer=issuer)] == ([fix] if fix else [])


def test_a_workload_that_is_a_subject_is_found_like_an_actor() -> None:
    assert found(subject="spiffe://acme.example/agent/writer") == []
    (one,) = found(subject="spiffe://acme.exampl/agent/writer")
    assert (one.row, one.fix) == ("subject spiffe://acme.exampl/agent/writer", "did you mean acme.example?")


def test_known_trust_domains_are_those_of_issuers_and_of_peers() -> None:
    assert domains_of([STS_TRUST], []) == set(map(str, STS_TRUST.actor_trust_domains)) != set()
    assert domains_of([], [TrustDomain("peer.example")]) == {"peer.example"}


def test_a_few_rows_are_enough_to_notice() -> None:
    rows = frozenset(f"spiffe://acme.exampl/agent/{number}" for number in range(MAX_UNMATCHED + 1))
    many = Deny(subjects=frozenset(), actors=rows, jtis=frozenset(), txns=frozenset())
    assert len([*unmatched(many, domains={"acme.example"}, issuers=set())]) == MAX_UNMATCHED
