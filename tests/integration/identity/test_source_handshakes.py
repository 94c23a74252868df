"""The tables of certificate chains and SPIFFE IDs, through the handshake of each kind of source.

One source of each kind goes through all states of trust that the tables need. The handshakes then use the identities
that it made.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from delegation_core.errors import Reason
from sidecar.identity.source import Identity
from tests.identity.fixed_source import FixedSource
from tests.identity.shapes import Issued, leaf
from tests.identity.supplies import SUPPLIES, Given, following
from tests.identity.test_handshake import NO_TLS_KEYS, OWN, admit, plain, refuse
from tests.identity.test_svid import BAD_LEAVES, FOREIGN, LAWFUL, ROOT_A, ROOT_B, UNTRUSTED

pytestmark = pytest.mark.integration

Anchors = tuple[Issued, ...]


def anchors_of(anchors: Sequence[Issued]) -> Anchors:
    return tuple(one for one in anchors if one is not ROOT_A)


EVERY = {anchors_of(shape.anchors) for shape in (*LAWFUL.values(), *UNTRUSTED.values())} | {()}


async def follow_all(kind: str, folder: Path) -> dict[Anchors, Identity]:
    supply = SUPPLIES[kind](folder)
    await supply.restore()
    identities: dict[Anchors, Identity] = {}
    async with following(supply, federated=["b.test"]) as follower:
        for anchors in sorted(EVERY, key=len):
            supply.give(Given(chain=[OWN], bundle=[ROOT_A, *anchors], federated={"b.test": [ROOT_B]}))
            identities[anchors] = await follower.identity()
    await supply.lose()
    return identities


@functools.cache
def identities_of(kind: str) -> dict[Anchors, Identity]:
    """Return the identities that a source made, by the content of a.test's bundle besides its root."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        return asyncio.run(follow_all(kind, Path(folder)))


def source_of(kind: str, anchors: Sequence[Issued] = ()) -> FixedSource:
    return FixedSource(identities_of(kind)[anchors_of(anchors)])


def refusal_of(kind: str, chain: Sequence[Issued], anchors: Sequence[Issued] = ()) -> Reason:
    return refuse(source_of(kind, anchors), plain(server=False, chain=chain)).refusal


@pytest.fixture(params=SUPPLIES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("case", LAWFUL)
def test_a_lawful_peer_is_admitted(kind: str, case: str) -> None:
    guard = admit(source_of(kind, LAWFUL[case].anchors), LAWFUL[case].chain).guard
    assert guard is not None
    assert guard.peer.trust_domain == "a.test"


@pytest.mark.parametrize("case", sorted(BAD_LEAVES.keys() - NO_TLS_KEYS))
def test_a_peer_without_a_proper_svid_is_refused(kind: str, case: str) -> None:
    assert refusal_of(kind, [BAD_LEAVES[case]]) is Reason.BAD_SVID


@pytest.mark.parametrize("case", sorted(UNTRUSTED.keys() - {"empty bundle"}))
def test_a_peer_whose_chain_ends_nowhere_is_refused(kind: str, case: str) -> None:
    assert refusal_of(kind, UNTRUSTED[case].chain, UNTRUSTED[case].anchors) is Reason.UNTRUSTED_CHAIN


@pytest.mark.parametrize("case", FOREIGN)
def test_a_peer_with_a_name_of_another_trust_domain_is_refused(kind: str, case: str) -> None:
    chain, reason = FOREIGN[case]
    assert refusal_of(kind, chain) is reason


def test_a_peer_of_a_federated_trust_domain_is_admitted_under_its_own_name(kind: str) -> None:
    guard = admit(source_of(kind), [leaf(ROOT_B, "spiffe://b.test/x")]).guard
    assert guard is not None
    assert guard.peer.spiffe_id == "spiffe://b.test/x"
