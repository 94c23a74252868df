"""Behaviour common to all identity sources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.base_source import BaseSource
from sidecar.identity.files import FileSettings, FileSource
from sidecar.identity.py_spiffe import PySpiffeSource
from sidecar.identity.source import IdentitySource, State
from sidecar.identity.source_factory import IdentitySettings, source_of
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.identity.shapes import HOUR, NOW, Issued, authority, leaf
from tests.identity.supplies import AUDIENCE, SUPPLIES, Follower, Given, Supply, following
from tests.identity.test_svid import BAD_LEAVES

pytestmark = pytest.mark.integration

A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT_A, ROOT_B, NEW_ROOT = authority("root a"), authority("root b"), authority("new root a")
SELF = SpiffeId("spiffe://a.test/self")


def own(number: int = 1, root: Issued = ROOT_A, **changes: object) -> Issued:
    """Return an SVID of ours; each ``number`` is another certificate."""
    return leaf(root, SELF, **({"not_after": NOW + HOUR + number} | changes))  # type: ignore[arg-type]


def given(number: int = 1, **changes: object) -> Given:
    return Given(**({"chain": [own(number)], "bundle": [ROOT_A]} | changes))  # type: ignore[arg-type]


@pytest.fixture(params=SUPPLIES)
async def supply(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Supply]:
    supply = SUPPLIES[request.param](tmp_path)
    await supply.restore()
    yield supply
    await supply.lose()


def holds(number: int) -> Callable[[BaseSource], bool]:
    """Return a check that the SVID with that number is in use."""
    return lambda source: source.current is not None and source.current.svid.not_after == NOW + HOUR + number


async def test_the_first_update_makes_an_identity(supply: Supply) -> None:
    async with following(supply) as follower:
        assert follower.state() is State.STARTING
        supply.give(given())
        identity = await follower.identity()
        assert (identity.spiffe_id, identity.number) == (SELF, 1)
        assert identity.bundles.keys() == {A}
        assert follower.state() is State.READY
        assert follower.source.last_error is None
        assert follower.current() is identity


async def test_a_source_waits_for_what_is_not_there_yet(supply: Supply) -> None:
    await supply.lose()
    async with following(supply) as follower:
        await follower.until(lambda source: source.last_error is not None)
        assert follower.state() is State.STARTING
        supply.give(given())
        await supply.restore()
        await follower.identity()


async def test_renewal_replaces_the_svid_and_keeps_the_bundles(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        first = await follower.identity()
        supply.give(given(2))
        second = await follower.identity()
        assert second.number == first.number + 1
        assert second.svid.not_after == first.svid.not_after + 1
        assert second.server_context is not first.server_context
        assert second.bundles[A] is first.bundles[A]


@pytest.mark.parametrize("kind", ["rsa", "p384", "ed25519"])
async def test_the_key_may_change_its_kind(supply: Supply, kind: str) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        await follower.identity()
        supply.give(given(chain=[own(2, kind=kind)]))
        await follower.identity()
        assert holds(2)(follower.source)


async def test_an_authority_is_added_used_and_taken_away(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        await follower.identity()
        supply.give(given(1, bundle=[ROOT_A, NEW_ROOT]))
        assert len((await follower.identity()).bundles[A].authorities) == 2
        supply.give(given(chain=[own(2, NEW_ROOT)], bundle=[ROOT_A, NEW_ROOT]))
        await follower.identity()
        supply.give(given(chain=[own(2, NEW_ROOT)], bundle=[NEW_ROOT]))
        assert (await follower.identity()).bundles[A].authorities == (NEW_ROOT.certificate,)


async def test_a_federated_trust_domain_comes_and_goes(supply: Supply) -> None:
    supply.give(given())
    async with following(supply, federated=["b.test"]) as follower:
        assert (await follower.identity()).bundles.keys() == {A}
        supply.give(given(federated={"b.test": [ROOT_B]}))
        with_b = await follower.identity()
        assert with_b.bundles[B].authorities == (ROOT_B.certificate,)
        assert with_b.bundles[A].authorities == (ROOT_A.certificate,)
        supply.give(given())
        assert (await follower.identity()).bundles.keys() == {A}


async def test_the_same_again_changes_nothing(supply: Supply) -> None:
    supply.give(given())
    async with following(supply) as follower:
        await follower.identity()
        supply.give(given())
        supply.give(given(2))
        assert (await follower.identity()).number == 2
        assert follower.source.counts.discarded == 0


UNUSABLE: dict[str, Callable[[Supply], None]] = {
    "nothing": lambda supply: supply.give_nothing(),
    "garbage": lambda supply: supply.give_garbage(),
    "a key that is another's": lambda supply: supply.give(given(2, key=ROOT_A)),
    "an expired SVID": lambda supply: supply.give(given(chain=[own(not_after=NOW - 1)])),
    "an SVID that is not valid yet": lambda supply: supply.give(
        given(chain=[own(not_before=NOW + 60, not_after=NOW + 9 * HOUR)])
    ),
    "a bundle that does not vouch for us": lambda supply: supply.give(given(2, bundle=[NEW_ROOT])),
    "an empty bundle": lambda supply: supply.give(given(2, bundle=[])),
    "an SVID that is none": lambda supply: supply.give(given(chain=[BAD_LEAVES["keyCertSign"]])),
}


OF_NO_USE_BUT_FOR_ITS_BUNDLE = "a bundle that does not vouch for us"


@pytest.mark.parametrize("case", sorted(UNUSABLE.keys() - {OF_NO_USE_BUT_FOR_ITS_BUNDLE}))
async def test_what_cannot_be_used_is_counted_and_the_last_good_identity_stays(supply: Supply, case: str) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        identity = await follower.identity()
        UNUSABLE[case](supply)
        await follower.until(lambda source: source.counts.discarded > 0)
        assert follower.current() is identity
        assert follower.state() in {State.READY, State.STALE}
        assert follower.source.last_error
        supply.give(given(3))
        await follower.until(holds(3))
        await follower.until(lambda source: source.last_error is None and source.state is State.READY)


@pytest.mark.parametrize("number", [1, 2], ids=["the same SVID", "another SVID"])
async def test_an_authority_that_is_withdrawn_is_trusted_no_more_though_our_svid_is_of_it(
    supply: Supply, number: int
) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        await follower.identity()
        supply.give(given(number, bundle=[NEW_ROOT]))
        identity = await follower.identity()
        assert identity.bundles[A].authorities == (NEW_ROOT.certificate,)
        assert holds(1)(follower.source)
        assert follower.source.last_error
        supply.give(given(chain=[own(3, NEW_ROOT)], bundle=[NEW_ROOT]))
        await follower.until(holds(3))
        await follower.until(lambda source: source.last_error is None and source.state is State.READY)


@pytest.mark.parametrize("case", UNUSABLE)
async def test_without_a_last_good_identity_there_is_none(supply: Supply, case: str) -> None:
    supply.give(given(1))
    UNUSABLE[case](supply)
    async with following(supply) as follower:
        await follower.until(lambda source: source.counts.discarded > 0)
        assert follower.current() is None
        assert follower.state() is State.STARTING
        assert follower.source.last_error
        supply.give(given(3))
        await follower.identity()


@pytest.mark.parametrize("bad", sorted(BAD_LEAVES))
async def test_no_certificate_that_breaks_the_rules_becomes_our_own(supply: Supply, bad: str) -> None:
    supply.give(given(chain=[BAD_LEAVES[bad]]))
    async with following(supply) as follower:
        await follower.until(lambda source: source.counts.discarded > 0)
        assert follower.current() is None


async def test_a_federated_bundle_that_is_garbage_is_not_trusted_and_costs_no_other(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply, federated=["b.test"]) as follower:
        await follower.identity()
        supply.give(given(2, federated={"b.test": b"junk"}))
        await follower.until(holds(2))
        assert follower.source.current is not None
        assert follower.source.current.bundles.keys() == {A}
        assert follower.source.last_error


async def test_garbage_in_the_place_of_a_federated_bundle_withdraws_nothing(supply: Supply) -> None:
    supply.give(given(1, federated={"b.test": [ROOT_B]}))
    async with following(supply, federated=["b.test"]) as follower:
        await follower.identity()
        supply.give(given(2, federated={"b.test": b"junk"}))
        await follower.until(holds(2))
        assert follower.source.current is not None
        assert follower.source.current.bundles[B].authorities == (ROOT_B.certificate,)
        assert follower.source.last_error


async def test_an_empty_federated_bundle_trusts_nobody_there(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply, federated=["b.test"]) as follower:
        await follower.identity()
        supply.give(given(2, federated={"b.test": []}))
        await follower.until(holds(2))
        assert follower.source.current is not None
        bundle = follower.source.current.bundles.get(B)
        assert bundle is None or bundle.authorities == ()


async def test_what_is_lost_serves_on_and_is_found_again(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        identity = await follower.identity()
        await supply.lose()
        await follower.until(lambda source: source.state is State.STALE)
        assert follower.current() is identity
        assert follower.source.last_error
        assert follower.source.counts.lost_connections > 0
        await supply.restore()
        await follower.until(lambda source: source.state is State.READY)
        await follower.until(lambda source: source.last_error is None)
        assert follower.current() is identity
        supply.give(given(2))
        assert (await follower.identity()).number == 2


async def test_withdrawal_leaves_no_identity_until_it_is_given_back(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        await follower.identity()
        supply.withdraw()
        assert await follower.change() is None
        assert follower.current() is None
        assert follower.state() is State.DENIED
        assert follower.source.last_error
        with pytest.raises(Unavailable):
            await follower.source.jwt_svid(AUDIENCE)
        supply.give(given(2))
        await follower.identity()
        assert follower.state() is State.READY


async def test_an_svid_of_another_name_than_the_configured_one_is_a_withdrawal(supply: Supply) -> None:
    other = "spiffe://a.test/other"
    supply.give(given(1))
    async with following(supply, spiffe_id=SELF) as follower:
        await follower.identity()
        supply.give(given(chain=[leaf(ROOT_A, other)], name=other))
        assert await follower.change() is None
        assert follower.state() is State.DENIED


async def test_an_identity_ends_with_its_svid_by_the_wall_clock(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        identity = await follower.identity()
        follower.now = identity.svid.not_after - 1
        assert follower.current() is identity
        follower.now = identity.svid.not_after
        assert follower.current() is None
        assert follower.state() is State.EXPIRED
        assert await follower.change() is None


async def test_a_clock_that_is_set_back_gives_back_what_it_had_ended(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        identity = await follower.identity()
        follower.now += 2 * HOUR
        assert await follower.change() is None
        follower.now -= 2 * HOUR
        assert await follower.change() is identity
        assert follower.state() is State.READY


@pytest.mark.parametrize("step", [-2 * HOUR, 2 * HOUR], ids=["behind", "ahead"])
async def test_a_clock_that_was_wrong_at_the_start_needs_no_second_update(supply: Supply, step: int) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        follower.now += step
        await follower.until(lambda source: source.counts.discarded > 0)
        assert "clock" in str(follower.source.last_error)
        assert follower.current() is None
        follower.now -= step
        await follower.identity()
        assert follower.source.last_error is None


async def test_an_expired_svid_that_is_handed_out_again_stays_expired(supply: Supply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        identity = await follower.identity()
        follower.now = identity.svid.not_after + 5
        assert await follower.change() is None
        await supply.lose()
        await supply.restore()
        supply.give(given(1))
        await follower.until(lambda source: source.counts.discarded > 0)
        assert follower.current() is None
        assert follower.state() is State.EXPIRED
        supply.give(given(chain=[own(not_after=NOW + 9 * HOUR)]))
        await follower.identity()


async def test_a_jwt_svid_of_our_own_is_had_for_an_audience(supply: Supply) -> None:
    token = TrustDomainAuthority(A).issue_jwt(SELF, AUDIENCE, ttl_s=300)
    supply.give(given())
    supply.give_jwt(token, {})
    async with following(supply) as follower:
        await follower.identity()
        assert await follower.source.jwt_svid(AUDIENCE) == token


def _tokens() -> dict[str, str | None]:
    signer = TrustDomainAuthority(A)
    return {
        "none": None,
        "junk": "junk",
        "another workload's": signer.issue_jwt(SpiffeId("spiffe://a.test/other"), AUDIENCE, ttl_s=300),
        "for another audience": signer.issue_jwt(SELF, "https://other.test", ttl_s=300),
        "expired": signer.issue_jwt(SELF, AUDIENCE, ttl_s=-1, issued_at=NOW),
    }


@pytest.mark.parametrize("case", ["none", "junk", "another workload's", "for another audience", "expired"])
async def test_no_other_jwt_svid_is_had(supply: Supply, case: str) -> None:
    supply.give(given())
    supply.give_jwt(_tokens()[case], {})
    async with following(supply) as follower:
        await follower.identity()
        with pytest.raises(Unavailable) as refused:
            await follower.source.jwt_svid(AUDIENCE)
        assert refused.value.reason is Reason.NOT_READY


async def test_jwt_bundles_come_change_and_go(supply: Supply) -> None:
    of_a, of_b = TrustDomainAuthority(A), TrustDomainAuthority(B)
    supply.give(given())
    supply.give_jwt(None, {"a.test": of_a.jwt_bundle(), "b.test": of_b.jwt_bundle()})
    async with following(supply) as follower:
        await follower.until(lambda source: source.jwt_bundles.keys() == {A, B})
        assert len(follower.source.jwt_bundles[A]) == 1
        supply.give_jwt(None, {"a.test": of_a.jwt_bundle()})
        await follower.until(lambda source: source.jwt_bundles.keys() == {A})


async def test_nothing_secret_is_told(supply: Supply, caplog: pytest.LogCaptureFixture) -> None:
    secret = own(2).key_der
    supply.give(given(2, key=ROOT_A))
    async with following(supply) as follower:
        await follower.until(lambda source: source.counts.discarded > 0)
        told = f"{follower.source.last_error} {caplog.text}"
        assert "PRIVATE" not in told
        assert repr(secret)[2:20] not in told


FILES = FileSettings(certificate=Path("/c"), key=Path("/k"), bundle=Path("/b"))
SETTINGS: dict[str, tuple[IdentitySettings, type[BaseSource]]] = {
    "workload_api": (WorkloadApiSettings(address="unix:///x"), WorkloadApiSource),
    "files": (FILES, FileSource),
    "py_spiffe": (WorkloadApiSettings(address="unix:///x", py_spiffe=True), PySpiffeSource),
}


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("jwt_bundles", [False, True])
def test_settings_say_which_source_it_is(case: str, jwt_bundles: bool) -> None:
    settings, kind = SETTINGS[case]
    assert type(source_of(settings, jwt_bundles=jwt_bundles)) is kind


def test_jwt_bundles_are_asked_for_where_they_are_needed() -> None:
    settings = WorkloadApiSettings(address="unix:///x")
    assert source_of(settings, jwt_bundles=True)._settings.jwt_bundles  # type: ignore[attr-defined]
    assert not source_of(settings)._settings.jwt_bundles  # type: ignore[attr-defined]


def test_every_source_meets_the_protocol(tmp_path: Path) -> None:
    for name, make in SUPPLIES.items():
        (tmp_path / name).mkdir()
        source: IdentitySource = Follower(make(tmp_path / name), [], None).source
        assert (source.current, source.state, source.last_error, source.jwt_bundles) == (None, State.STARTING, None, {})
