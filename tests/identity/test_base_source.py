"""Updates in the smallest possible source: the test supplies them and sets the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from delegation_core.errors import Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.base_source import BaseSource
from sidecar.identity.bundle import X509Bundle, parse_bundle
from sidecar.identity.generation import new_identity, parse_x509_svid
from sidecar.identity.source import Identity, State
from sidecar.identity.update import UpdateError, WithdrawnError, X509Update
from sidecar_dev.pki import TrustDomainAuthority
from tests.identity.shapes import HOUR, NOW, Issued, authority, leaf, new_key

A = TrustDomain("a.test")
ROOT_A = authority("root a")
SELF = SpiffeId("spiffe://a.test/self")
BUNDLE = parse_bundle(A, ROOT_A.der)


def own(not_before: int = NOW - HOUR, not_after: int = NOW + HOUR) -> Issued:
    return leaf(ROOT_A, SELF, not_before=not_before, not_after=not_after)


def update_of(issued: Issued, *, broken: int = 0) -> X509Update:
    svid = parse_x509_svid(SELF, [issued.der], issued.key_der)
    return X509Update(svid=svid, bundles=MappingProxyType({A: BUNDLE}), broken=broken)


class Handed(BaseSource):
    """A source without a supplier."""

    def __init__(self) -> None:
        self.now = float(NOW)
        self.told: list[Identity | None] = []
        super().__init__(lambda: self.now, self._no_jwt_svid)
        self.subscribe(self.told.append)

    async def _no_jwt_svid(self, audience: str, spiffe_id: SpiffeId) -> str:
        raise AssertionError

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def hand(self, update: X509Update | Exception) -> bool:
        def read(_held: Identity | None) -> X509Update:
            if isinstance(update, Exception):
                raise update
            return update

        return await self._take(read)

    def lose(self) -> None:
        self._note_loss("the source is lost")

    async def tick(self) -> None:
        await self._tick()


FUTURE = update_of(own(NOW + 60, NOW + 2 * HOUR))
PAST = update_of(own(NOW - 2 * HOUR, NOW - 60))
GOOD = update_of(own())


@pytest.mark.parametrize(("update", "step"), [(FUTURE, 60), (PAST, -61)], ids=["not yet", "no more"])
async def test_an_svid_is_taken_when_the_clock_says_it_is_its_time(update: X509Update, step: int) -> None:
    source = Handed()
    assert not await source.hand(update)
    await source.tick()
    assert source.told == []
    assert source.counts.discarded == 1
    source.now += step
    await source.tick()
    assert source.current is not None
    assert source.told == [source.current]
    assert source.last_error is None


@pytest.mark.parametrize("now", [NOW + 60, NOW + 2 * HOUR - 1], ids=["at its first second", "at its last"])
async def test_the_time_of_an_svid_has_two_ends(now: int) -> None:
    source = Handed()
    source.now = now
    assert await source.hand(FUTURE)


@pytest.mark.parametrize("now", [NOW + 59, NOW + 2 * HOUR], ids=["a second too early", "a second too late"])
async def test_and_is_over_at_either(now: int) -> None:
    source = Handed()
    source.now = now
    assert not await source.hand(FUTURE)
    assert source.last_error == "our own SVID is expired or not valid yet, by this machine's clock"


async def test_what_waited_for_its_time_is_forgotten_when_something_newer_comes() -> None:
    source = Handed()
    await source.hand(FUTURE)
    await source.hand(GOOD)
    newest = source.current
    source.now += 60
    await source.tick()
    assert source.current is newest


async def test_what_waited_for_its_time_is_forgotten_at_withdrawal() -> None:
    source = Handed()
    await source.hand(FUTURE)
    await source.hand(WithdrawnError("taken back"))
    source.now += 60
    await source.tick()
    assert source.current is None
    assert source.state is State.DENIED


async def test_the_same_again_is_no_new_generation() -> None:
    source = Handed()
    assert await source.hand(GOOD)
    first = source.current
    assert await source.hand(GOOD)
    assert source.current is first
    assert source.counts.generations == 1
    assert source.told == [first]


async def test_who_subscribed_no_more_is_not_told() -> None:
    source = Handed()
    told: list[Identity | None] = []
    source.subscribe(told.append)
    source.unsubscribe(told.append)
    source.unsubscribe(told.append)
    await source.hand(GOOD)
    assert told == []
    assert source.told == [source.current]


async def test_one_that_is_told_may_be_the_end_of_another() -> None:
    source = Handed()
    last: list[Identity | None] = []
    source.unsubscribe(source.told.append)

    def end(_identity: Identity | None) -> None:
        source.unsubscribe(end)

    source.subscribe(end)
    source.subscribe(last.append)
    await source.hand(GOOD)
    assert last == [source.current]


async def test_bundles_that_were_lost_are_counted_and_told() -> None:
    source = Handed()
    await source.hand(update_of(own(), broken=2))
    assert source.counts.broken_bundles == 2
    assert source.last_error == "2 federated bundles cannot be used"
    await source.hand(GOOD)
    assert source.last_error is None


async def test_one_trouble_is_logged_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    source = Handed()
    for _ in range(3):
        await source.hand(UpdateError("junk"))
    assert source.counts.discarded == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await source.hand(UpdateError("other junk"))
    assert len(caplog.records) == 2


async def test_withdrawal_and_return_are_told_once_each() -> None:
    source = Handed()
    await source.hand(GOOD)
    first = source.current
    for _ in range(2):
        await source.hand(WithdrawnError("taken back"))
    assert source.state is State.DENIED
    await source.hand(GOOD)
    assert source.told == [first, None, source.current]
    assert source.current is not first


async def test_a_bad_update_tells_of_an_identity_that_has_ended_meanwhile() -> None:
    source = Handed()
    await source.hand(GOOD)
    source.now += 2 * HOUR
    await source.hand(UpdateError("junk"))
    assert source.told[-1] is None
    assert source.state is State.EXPIRED


async def test_a_source_that_stays_lost_for_one_reason_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = Handed()
    source.lose()
    source.lose()
    assert [record.message for record in caplog.records] == ["the identity source is lost"]
    assert source.counts.lost_connections == 2


async def test_what_is_lost_changes_nothing() -> None:
    source = Handed()
    await source.hand(GOOD)
    identity = source.current
    source.lose()
    assert source.current is identity
    assert (source.last_error, source.counts.lost_connections) == ("the source is lost", 1)


@pytest.mark.parametrize("end", ["never there", "expired", "withdrawn"])
async def test_without_an_identity_there_is_no_jwt_svid(end: str) -> None:
    source = Handed()
    if end != "never there":
        await source.hand(GOOD)
    if end == "expired":
        source.now += 2 * HOUR
    if end == "withdrawn":
        await source.hand(WithdrawnError("taken back"))
    signing = asyncio.ensure_future(source._jwt_svids.run())
    try:
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="no identity"):
            await source.jwt_svid("https://sts.test")
    finally:
        signing.cancel()
        await asyncio.gather(signing, return_exceptions=True)


NEW_ROOT_A = authority("new root a")
STRANGER = authority("root of a stranger")
WITH_BOTH = parse_bundle(A, ROOT_A.der + NEW_ROOT_A.der)
NEW_BUNDLE = parse_bundle(A, NEW_ROOT_A.der)
EMPTY = parse_bundle(A, b"")
B = TrustDomain("b.test")
ROOT_B = authority("root b")
BUNDLE_B = parse_bundle(B, ROOT_B.der)


def trusting(update: X509Update, *bundles: X509Bundle) -> X509Update:
    return replace(update, bundles=MappingProxyType({bundle.trust_domain: bundle for bundle in bundles}))


def by(root: Issued) -> X509Update:
    return update_of(leaf(root, SELF, not_after=NOW + HOUR + 1))


WITHDRAWING = {
    "the authority of our SVID": trusting(GOOD, NEW_BUNDLE),
    "the same, and a new SVID is a stranger's": trusting(by(STRANGER), NEW_BUNDLE),
    "the same, and a new SVID has ended": trusting(PAST, NEW_BUNDLE),
    "the same, and a new SVID has not begun": trusting(FUTURE, NEW_BUNDLE),
    "the same, and another trust domain's is added": trusting(GOOD, NEW_BUNDLE, BUNDLE_B),
}


@pytest.mark.parametrize("update", WITHDRAWING.values(), ids=WITHDRAWING.keys())
async def test_an_authority_that_is_withdrawn_is_trusted_no_more_though_our_svid_is_of_it(update: X509Update) -> None:
    source = Handed()
    await source.hand(trusting(GOOD, WITH_BOTH))
    before = source.current
    assert before is not None
    for _ in range(2):
        assert not await source.hand(update)
        identity = source.current
        assert identity is not None
        assert identity.svid is before.svid
        assert dict(identity.bundles) == dict(update.bundles)
        assert source.last_error is not None
        assert source.last_error.endswith("the previous SVID stays in use, with the current bundles")
    assert source.told == [before, identity]
    assert source.counts.discarded == 2


async def test_with_a_new_svid_everything_is_well_again() -> None:
    source = Handed()
    await source.hand(trusting(GOOD, WITH_BOTH))
    await source.hand(trusting(GOOD, NEW_BUNDLE))
    assert await source.hand(trusting(by(NEW_ROOT_A), NEW_BUNDLE))
    assert source.last_error is None
    assert source.current is not None
    assert source.current.svid.not_after == NOW + HOUR + 1


async def test_and_if_the_authority_comes_back() -> None:
    source = Handed()
    await source.hand(trusting(GOOD, WITH_BOTH))
    await source.hand(trusting(GOOD, NEW_BUNDLE))
    assert await source.hand(trusting(GOOD, WITH_BOTH))
    assert source.last_error is None


@pytest.mark.parametrize("bundles", [[EMPTY], [BUNDLE_B], [EMPTY, BUNDLE_B]], ids=["empty", "missing", "empty beside"])
async def test_an_update_without_any_authority_of_our_own_trust_domain_is_malformed_and_withdraws_nothing(
    bundles: list[X509Bundle],
) -> None:
    source = Handed()
    await source.hand(GOOD)
    before = source.current
    assert not await source.hand(trusting(GOOD, *bundles))
    assert source.current is before
    assert "stays in use" not in str(source.last_error)


async def test_the_bundles_beside_an_unusable_svid_of_another_trust_domain_are_not_taken() -> None:
    source = Handed()
    await source.hand(GOOD)
    before = source.current
    name = SpiffeId("spiffe://b.test/self")
    issued = leaf(ROOT_B, name, not_before=NOW - 2 * HOUR, not_after=NOW - 60)
    svid = parse_x509_svid(name, [issued.der], issued.key_der)
    assert not await source.hand(trusting(replace(PAST, svid=svid), BUNDLE_B, NEW_BUNDLE))
    assert source.current is before


async def test_who_has_no_identity_yet_begins_with_none_that_its_bundle_does_not_vouch_for() -> None:
    source = Handed()
    assert not await source.hand(trusting(GOOD, NEW_BUNDLE))
    assert source.current is None
    assert source.state is State.STARTING


class Issuing(Handed):
    """A source with JWT-SVIDs too, each freshly signed."""

    def __init__(self) -> None:
        super().__init__()
        self.authority = TrustDomainAuthority(A)

    async def _no_jwt_svid(self, audience: str, spiffe_id: SpiffeId) -> str:
        return self.authority.issue_jwt(spiffe_id, audience, issued_at=int(self.now))


async def test_a_new_generation_renews_jwt_svids_and_the_same_one_does_not() -> None:
    """As when an authority is replaced without an overlap: its tokens are refused by everybody who knows."""
    source = Issuing()
    await source.hand(GOOD)
    signing = asyncio.ensure_future(source._jwt_svids.run())
    try:
        await asyncio.sleep(0)
        first = await source.jwt_svid("https://sts.test")
        source.now += 1
        await source.hand(GOOD)
        assert await source.jwt_svid("https://sts.test") == first
        await source.hand(update_of(own()))
        assert await source.jwt_svid("https://sts.test") != first
    finally:
        signing.cancel()
        await asyncio.gather(signing, return_exceptions=True)


@pytest.mark.parametrize("step", ["read", "built"])
async def test_the_loop_goes_on_while_an_update_is_read_and_its_contexts_are_built(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the loop this would wait for itself."""
    reached = threading.Event()

    def wait(*_arguments: object, **_named: object) -> None:
        assert reached.wait(10)

    def build(*arguments: Any, **named: Any) -> Identity:
        wait()
        return new_identity(*arguments, **named)

    def read(_held: Identity | None) -> X509Update:
        if step == "read":
            wait()
        return GOOD

    if step == "built":
        monkeypatch.setattr("sidecar.identity.base_source.new_identity", build)
    source = Handed()
    taking = asyncio.ensure_future(source._take(read))
    await asyncio.sleep(0)
    assert source.current is None
    reached.set()
    assert await taking
    assert source.current is not None


async def test_updates_are_put_in_place_in_the_order_in_which_they_came() -> None:
    source = Handed()
    first_may_go = threading.Event()
    newer = update_of(own(NOW - 60, NOW + 2 * HOUR))

    def slow(_held: Identity | None) -> X509Update:
        assert first_may_go.wait(10)
        return GOOD

    first = asyncio.ensure_future(source._take(slow))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(source.hand(newer))
    await asyncio.sleep(0)
    first_may_go.set()
    assert await first
    assert await second
    assert source.current is not None
    assert source.current.svid == newer.svid


@pytest.mark.parametrize("step", ["read", "built"])
@pytest.mark.parametrize("withdrawn", [True, False])
async def test_an_identity_that_is_withdrawn_while_an_update_is_taken_stays_away(
    step: str, withdrawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Handed()
    waiting, may_go = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        assert may_go.wait(10)

    def build(*arguments: Any, **named: Any) -> Identity:
        if step == "built":
            wait()
        return new_identity(*arguments, **named)

    def read(_held: Identity | None) -> X509Update:
        if step == "read":
            wait()
        return GOOD

    monkeypatch.setattr("sidecar.identity.base_source.new_identity", build)
    taking = asyncio.ensure_future(source._take(read))
    await asyncio.to_thread(waiting.wait, 10)
    if withdrawn:
        source._withdraw("denied")
    may_go.set()
    assert await taking is not withdrawn
    assert (source.current is None) is withdrawn


async def test_an_update_is_read_with_what_is_held_when_its_turn_has_come() -> None:
    source = Handed()
    seen: list[Identity | None] = []

    def read(held: Identity | None) -> X509Update:
        seen.append(held)
        return GOOD

    await asyncio.gather(source.hand(GOOD), source._take(read))
    assert seen == [source.current]


async def test_one_svid_follows_another_that_has_ended_without_a_word_between() -> None:
    source = Handed()
    await source.hand(GOOD)
    await source.hand(update_of(own(NOW + HOUR, NOW + 2 * HOUR)))
    source.now += GOOD.svid.not_after - NOW
    await source.tick()
    assert [told is not None for told in source.told] == [True, True]


async def test_an_identity_is_current_before_the_second_in_which_it_ends() -> None:
    source = Handed()
    await source.hand(update_of(own(not_after=NOW + HOUR)))
    for now, is_there in ((NOW + HOUR - 1, True), (NOW + HOUR, False)):
        source.now = float(now)
        assert (source.current is not None) is is_there
        assert (source.state is State.EXPIRED) is not is_there


async def test_the_end_of_an_identity_is_told_by_the_next_tick_and_once() -> None:
    source = Handed()
    await source.hand(GOOD)
    first = source.current
    await source.tick()
    assert source.told == [first]
    source.now = float(GOOD.svid.not_after)
    await source.tick()
    await source.tick()
    assert source.told == [first, None]


async def test_the_end_of_an_identity_is_told_while_an_update_is_still_read() -> None:
    source = Handed()
    await source.hand(GOOD)
    first = source.current
    may_go = threading.Event()

    def slow(_held: Identity | None) -> X509Update:
        assert may_go.wait(10)
        return GOOD

    taking = asyncio.ensure_future(source._take(slow))
    await asyncio.sleep(0)
    source.now = float(GOOD.svid.not_after)
    ticking = asyncio.ensure_future(source.tick())
    await asyncio.sleep(0)
    told = list(source.told)
    may_go.set()
    await asyncio.gather(taking, ticking)
    assert told == [first, None]


async def test_authorities_that_openssl_may_confuse_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    source = Handed()
    one, other = (authority("one name", key=new_key("p256", key), extensions={"ski": None}) for key in "ab")
    await source.hand(trusting(GOOD, BUNDLE, parse_bundle(B, one.der)))
    assert caplog.records == []
    await source.hand(trusting(GOOD, BUNDLE, parse_bundle(B, one.der + other.der)))
    assert [(record.levelno, vars(record)["trust_domains"]) for record in caplog.records] == [(logging.WARNING, [B])]
