from __future__ import annotations

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.sts.tokens import check_subject, verify_actor, verify_subject
from tests.fakes.sts import FRONT, Mesh
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, TRUST_DOMAIN, WRITER, SvidMint


def actor_of(raw: str, mint: SvidMint, client: SpiffeId = WRITER) -> SpiffeId:
    bundles = {TRUST_DOMAIN: mint.keys, TrustDomain("partner.example"): SvidMint(key=4).keys}
    return verify_actor(raw, client=client, bundles=bundles, audience=ISSUER, now=NOW).spiffe_id


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"sub": ABSENT}, id="no subject"),
        pytest.param({"sub": 7}, id="a number"),
        pytest.param({"sub": "spiffe://acme.example"}, id="a trust domain"),
        pytest.param({"sub": "spiffe://unknown.example/agent/writer"}, id="an unknown domain"),
        pytest.param({"sub": "spiffe://partner.example/agent/writer"}, id="another domain's subject"),
        pytest.param({"aud": []}, id="no audience"),
        pytest.param({"aud": [CRM]}, id="another audience"),
        pytest.param({"exp": ABSENT}, id="no end"),
        pytest.param({"exp": NOW - 31}, id="ended"),
        pytest.param({"iat": NOW + 31}, id="not begun"),
    ],
)
def test_an_actor_token_with_one_thing_wrong_is_refused_by_one_code(claims: dict[str, object]) -> None:
    mint = SvidMint()
    with pytest.raises(Denied) as refused:
        actor_of(mint.mint(mint.claims(**{"sub": WRITER, **claims})), mint)
    assert refused.value.reason is Reason.ACTOR_TOKEN_INVALID
    assert refused.value.detail
    assert actor_of(mint.mint(mint.claims(sub=WRITER)), mint) == WRITER


def test_an_actor_token_is_the_clients_own() -> None:
    mint = SvidMint()
    token = mint.mint(mint.claims(sub=WRITER))
    with pytest.raises(Denied) as refused:
        actor_of(token, mint, client=PLANNER)
    assert refused.value.reason is Reason.ACTOR_NOT_CLIENT


def test_a_subject_token_is_verified_with_the_names_its_bearer_owns() -> None:
    mesh = Mesh()
    bearer, key = parse_bearer(mesh.own()), mesh.ring.active.verification_key
    assert verify_subject(bearer, client=WRITER, key=key, policy=mesh.policy, now=NOW).subject == "alice"
    with pytest.raises(Denied) as refused:
        verify_subject(bearer, client=CRM, key=key, policy=mesh.policy, now=NOW)
    assert refused.value.reason is Reason.NOT_YOUR_TOKEN


def test_any_other_fault_of_a_subject_token_keeps_its_own_reason() -> None:
    mesh = Mesh()
    bearer, key = parse_bearer(mesh.own(iat=NOW - 400, exp=NOW - 100)), mesh.ring.active.verification_key
    with pytest.raises(Denied) as refused:
        verify_subject(bearer, client=WRITER, key=key, policy=mesh.policy, now=NOW)
    assert refused.value.reason is Reason.TOKEN_EXPIRED


def test_a_strangers_login_token_is_refused_before_its_key_is_looked_for() -> None:
    mesh = Mesh()
    bearer = parse_bearer(mesh.login())
    check_subject(bearer, client=FRONT, policy=mesh.policy)
    with pytest.raises(Denied) as refused:
        check_subject(bearer, client=PLANNER, policy=mesh.policy)
    assert refused.value.reason is Reason.NOT_AN_ENTRY
