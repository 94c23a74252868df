from __future__ import annotations

from collections.abc import Mapping

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.sts.actors import ActorTokens
from tests.fakes.tokens import ISSUER, NOW, PLANNER, TRUST_DOMAIN, WRITER, SvidMint

MINT = SvidMint()
TOKEN = MINT.mint(MINT.claims(sub=WRITER))
BUNDLES = {TRUST_DOMAIN: MINT.keys}


def reason_of(
    actors: ActorTokens,
    raw: str = TOKEN,
    *,
    client: SpiffeId = WRITER,
    bundles: Mapping[TrustDomain, KeySet] = BUNDLES,
    audience: str = ISSUER,
    now: int = NOW,
) -> Reason | None:
    try:
        actors.verify(raw, client=client, bundles=bundles, audience=audience, now=now)
    except Denied as error:
        return error.reason
    return None


@pytest.fixture
def actors() -> ActorTokens:
    """Return a cache that has seen the token before."""
    actors = ActorTokens()
    assert reason_of(actors) is None
    return actors


def test_a_token_that_is_shown_again_is_the_one_that_was_verified(actors: ActorTokens) -> None:
    first = actors.verify(TOKEN, client=WRITER, bundles=BUNDLES, audience=ISSUER, now=NOW)
    assert actors.verify(TOKEN, client=WRITER, bundles=BUNDLES, audience=ISSUER, now=NOW + 1) is first
    assert len(actors) == 1


@pytest.mark.parametrize("now", [NOW + 290 + 30, NOW - 10 - 31], ids=["ended", "not begun"])
def test_its_time_is_judged_with_each_use(actors: ActorTokens, now: int) -> None:
    assert reason_of(actors, now=now) is Reason.ACTOR_TOKEN_INVALID
    assert len(actors) == 0
    assert reason_of(actors) is None


def test_on_another_clients_channel_it_opens_nothing(actors: ActorTokens) -> None:
    assert reason_of(actors, client=PLANNER) is Reason.ACTOR_NOT_CLIENT
    assert reason_of(actors) is None


@pytest.mark.parametrize(
    "bundles",
    [
        pytest.param({}, id="no bundle"),
        pytest.param({TRUST_DOMAIN: SvidMint(kid="other", key=4).keys}, id="without its key"),
        pytest.param({TRUST_DOMAIN: SvidMint(key=4).keys}, id="with another key of that name"),
    ],
)
def test_it_ends_with_the_key_in_its_bundle(actors: ActorTokens, bundles: Mapping[TrustDomain, KeySet]) -> None:
    assert reason_of(actors, bundles=bundles) is Reason.ACTOR_TOKEN_INVALID
    assert len(actors) == 0


def test_a_bundle_that_came_anew_with_the_same_key_changes_no_answer(actors: ActorTokens) -> None:
    assert reason_of(actors, bundles={TRUST_DOMAIN: MINT.keys}) is None


def test_for_another_audience_it_is_read_anew(actors: ActorTokens) -> None:
    assert reason_of(actors, audience="https://other.example") is Reason.ACTOR_TOKEN_INVALID


def test_a_token_with_another_signature_is_another_token(actors: ActorTokens) -> None:
    signing_input = TOKEN.rpartition(".")[0]
    forged = SvidMint(key=4).mint(MINT.claims(sub=WRITER)).rpartition(".")[2]
    assert reason_of(actors, f"{signing_input}.{forged}") is Reason.ACTOR_TOKEN_INVALID
    assert len(actors) == 1


def test_what_is_refused_is_not_remembered() -> None:
    actors = ActorTokens()
    assert reason_of(actors, client=PLANNER) is Reason.ACTOR_NOT_CLIENT
    assert reason_of(actors, bundles={}) is Reason.ACTOR_TOKEN_INVALID
    assert len(actors) == 0


def test_the_memory_is_bounded_in_bytes_and_the_oldest_goes_first() -> None:
    tokens = [MINT.mint(MINT.claims(sub=WRITER, exp=NOW + 100 + number)) for number in range(3)]
    actors = ActorTokens(max_bytes=2 * (len(tokens[0]) + 1500))
    for token in tokens:
        assert reason_of(actors, token) is None
    assert len(actors) == 2
    assert reason_of(actors, tokens[0]) is None


def test_tokens_that_have_expired_go_when_a_new_one_comes() -> None:
    actors = ActorTokens()
    for number in range(3):
        assert reason_of(actors, MINT.mint(MINT.claims(sub=WRITER, exp=NOW + 100 + number))) is None
    later = NOW + 200
    assert reason_of(actors, MINT.mint(MINT.claims(sub=WRITER, iat=later, exp=later + 100)), now=later) is None
    assert len(actors) == 1
