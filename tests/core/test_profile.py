"""Profiles: the actor's name in each kind of issuer, and forbidden settings."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.act import Actor
from delegation_core.profile import ActorForm, IssuerProfile, TrustedIssuer
from delegation_core.profile_presets import PRESETS
from delegation_core.spiffe_id import TrustDomain
from tests.fakes.tokens import ISSUER, PLANNER, TRUST_DOMAIN, WRITER


def trusted(actor: ActorForm, **changes: Any) -> TrustedIssuer:
    profile = IssuerProfile(name="test", typ=frozenset({"at+jwt"}), actor=actor, **changes)
    return TrustedIssuer(
        issuer=ISSUER, profile=profile, scopes=frozenset(), actor_trust_domains=frozenset({TRUST_DOMAIN})
    )


TABLE = {(ISSUER, "agent-writer"): WRITER, (None, "agent-planner"): PLANNER}
MAPPED = {
    "sub": (trusted(ActorForm.SUB), Actor(WRITER)),
    "iss and sub": (trusted(ActorForm.ISS_SUB), Actor(WRITER, ISSUER)),
    "configured iss and sub": (
        trusted(ActorForm.ISS_SUB, act_iss="spiffe://acme.example"),
        Actor(WRITER, "spiffe://acme.example"),
    ),
    "client_id": (trusted(ActorForm.CLIENT_ID), Actor("0b8f", None, WRITER)),
    "table": (trusted(ActorForm.TABLE, actor_table=TABLE), Actor("agent-writer", ISSUER)),
}
UNMAPPED = {
    "sub no SPIFFE ID": (trusted(ActorForm.SUB), Actor("writer")),
    "sub a trust domain": (trusted(ActorForm.SUB), Actor("spiffe://acme.example")),
    "sub in capitals": (trusted(ActorForm.SUB), Actor("SPIFFE://acme.example/agent/writer")),
    "sub no SPIFFE ID, client_id one": (trusted(ActorForm.SUB), Actor("writer", None, WRITER)),
    "another trust domain": (trusted(ActorForm.SUB), Actor("spiffe://partner.example/agent/writer")),
    "iss missing": (trusted(ActorForm.ISS_SUB), Actor(WRITER)),
    "another iss": (trusted(ActorForm.ISS_SUB), Actor(WRITER, "https://idp.example")),
    "the issuer where another iss is configured": (
        trusted(ActorForm.ISS_SUB, act_iss="spiffe://acme.example"),
        Actor(WRITER, ISSUER),
    ),
    "client_id missing": (trusted(ActorForm.CLIENT_ID), Actor(WRITER)),
    "client_id no SPIFFE ID": (trusted(ActorForm.CLIENT_ID), Actor("0b8f", None, "writer")),
    "not in the table": (trusted(ActorForm.TABLE, actor_table=TABLE), Actor("agent-crm", ISSUER)),
    "in the table under another iss": (trusted(ActorForm.TABLE, actor_table=TABLE), Actor("agent-writer")),
    "in the table without iss": (trusted(ActorForm.TABLE, actor_table=TABLE), Actor("agent-planner", ISSUER)),
    "an empty table": (trusted(ActorForm.TABLE), Actor(WRITER)),
}


@pytest.mark.parametrize(("issuer", "actor"), MAPPED.values(), ids=MAPPED.keys())
def test_an_actor_is_mapped_as_its_issuer_names_it(issuer: TrustedIssuer, actor: Actor) -> None:
    assert issuer.actor_id(actor) == WRITER


@pytest.mark.parametrize(("issuer", "actor"), UNMAPPED.values(), ids=UNMAPPED.keys())
def test_an_actor_named_in_another_way_is_nobody(issuer: TrustedIssuer, actor: Actor) -> None:
    assert issuer.actor_id(actor) is None


DOMAIN = "spiffe://acme.example"
AGREEING = {
    "no iss": (trusted(ActorForm.SUB), Actor(WRITER)),
    "the issuer": (trusted(ActorForm.SUB), Actor(WRITER, ISSUER)),
    "the trust domain": (trusted(ActorForm.SUB), Actor(WRITER, DOMAIN)),
    "the configured iss": (trusted(ActorForm.SUB, act_iss="https://idp.example"), Actor(WRITER, "https://idp.example")),
    "the issuer beside a configured iss": (trusted(ActorForm.SUB, act_iss="https://x"), Actor(WRITER, ISSUER)),
    "the same client_id": (trusted(ActorForm.SUB), Actor(WRITER, None, WRITER)),
    "a client_id of another kind": (trusted(ActorForm.SUB), Actor(WRITER, None, "0b8f")),
    "an agent": (trusted(ActorForm.SUB), Actor(WRITER, None, None, "ai_agent service")),
    "sub of another kind": (trusted(ActorForm.CLIENT_ID), Actor("0b8f", ISSUER, WRITER)),
    "a pair in a table": (trusted(ActorForm.TABLE), Actor(WRITER, "https://idp.example")),
    "no SPIFFE ID decides": (trusted(ActorForm.SUB), Actor("writer", "https://idp.example", None, "user")),
}
CONTRADICTING = {
    "another iss": (trusted(ActorForm.SUB), Actor(WRITER, "https://idp.example"), False),
    "another iss, by a slash": (trusted(ActorForm.SUB), Actor(WRITER, f"{ISSUER}/"), False),
    "another trust domain": (trusted(ActorForm.SUB), Actor(WRITER, "spiffe://partner.example"), False),
    "neither these nor the configured one": (trusted(ActorForm.SUB, act_iss="https://x"), Actor(WRITER, "x"), False),
    "another iss beside client_id": (trusted(ActorForm.CLIENT_ID), Actor("0b8f", "https://x", WRITER), False),
    "another client_id": (trusted(ActorForm.SUB), Actor(WRITER, None, PLANNER), True),
    "another client_id, in capitals": (trusted(ActorForm.SUB), Actor(WRITER, None, PLANNER.upper()), True),
    "another sub": (trusted(ActorForm.CLIENT_ID), Actor(PLANNER, None, WRITER), True),
    "another client_id, by iss and sub": (trusted(ActorForm.ISS_SUB), Actor(WRITER, ISSUER, PLANNER), True),
    "a user": (trusted(ActorForm.SUB), Actor(WRITER, None, None, "user"), True),
    "a user among others": (trusted(ActorForm.SUB), Actor(WRITER, None, None, "ai_agent User"), True),
}


@pytest.mark.parametrize(("issuer", "actor"), AGREEING.values(), ids=AGREEING.keys())
def test_facts_that_agree_with_an_actor_s_name_pass(issuer: TrustedIssuer, actor: Actor) -> None:
    assert issuer.contradiction(actor) is None


@pytest.mark.parametrize(("issuer", "actor", "prior"), CONTRADICTING.values(), ids=CONTRADICTING.keys())
def test_facts_that_contradict_an_actor_s_name_are_told(issuer: TrustedIssuer, actor: Actor, *, prior: bool) -> None:
    """An earlier actor may have the namespace of another issuer, whose token it was copied from; nothing else."""
    assert issuer.contradiction(actor) is not None
    assert (issuer.contradiction(actor, prior=True) is not None) == prior


def test_an_issuer_without_trust_domains_speaks_for_nobody() -> None:
    profile = PRESETS["sts"]
    issuer = TrustedIssuer(issuer=ISSUER, profile=profile, scopes=frozenset(), actor_trust_domains=frozenset())

    assert issuer.actor_id(Actor(WRITER)) is None


def test_a_trust_domain_is_compared_whole() -> None:
    issuer = TrustedIssuer(
        issuer=ISSUER,
        profile=PRESETS["sts"],
        scopes=frozenset(),
        actor_trust_domains=frozenset({TrustDomain("example"), TrustDomain("acme.example.org")}),
    )

    assert issuer.actor_id(Actor(WRITER)) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"leeway_s": 61}, id="leeway above a minute"),
        pytest.param({"leeway_s": -1}, id="leeway below zero"),
        pytest.param({"max_act_depth": 0}, id="no actor"),
        pytest.param({"max_act_depth": 9}, id="nine actors"),
        pytest.param({"algorithms": frozenset({"HS256"})}, id="HMAC"),
        pytest.param({"algorithms": frozenset({"ES256", "none"})}, id="none among others"),
        pytest.param({"audience_claims": ()}, id="no audience claim"),
    ],
)
def test_an_unsafe_profile_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"leeway_s|max_act_depth|algorithms|audience_claims"):
        trusted(ActorForm.SUB, **changes)


def test_a_profile_that_is_just_safe_can_be_made() -> None:
    assert trusted(ActorForm.SUB, leeway_s=60, max_act_depth=8, algorithms=frozenset({"ES512"})).issuer == ISSUER
