from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Reason, Unavailable
from sidecar.sts.keys import KeyRefusedError, SigningKey
from sidecar.sts.schedule import (
    ANNOUNCE_S,
    EPHEMERAL_PERIOD_S,
    GRACE_S,
    KEYS_MAX_AGE_S,
    LATE_S,
    MOUNT_LAG_S,
    REFRESH_S,
    EphemeralKeys,
    KeySchedule,
    TimedKey,
)

T = 1_790_000_000
KEYS = [SigningKey.generate() for _ in range(4)]
KEEP_S = 100
KEPT_S = KEEP_S + ANNOUNCE_S + LATE_S  # another replica may have seen the next key, or started, that much later


def schedule(*times: int) -> KeySchedule:
    return KeySchedule(tuple(TimedKey(at, key) for at, key in zip(times, KEYS, strict=False)))


def roles(made: KeySchedule, now: int) -> tuple[int, list[int], list[int]]:
    """Return the members of ``KEYS`` that sign, are announced and are retired."""
    ring = made.at(now, keep_s=KEEP_S)
    numbers = {key.kid: number for number, key in enumerate(KEYS)}
    announced, retired = ([numbers[key.kid] for key in keys] for keys in (ring.announced, ring.retired))
    return numbers[ring.active.kid], announced, retired


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(T - 1, (0, [1, 2], []), id="a second before its time, by a clock behind, the first key signs"),
        pytest.param(T, (0, [1, 2], []), id="at its time"),
        pytest.param(T + 999, (0, [1, 2], []), id="to the last second"),
        pytest.param(T + 1000, (1, [2], [0]), id="the next takes over in its second"),
        pytest.param(T + 1000 + KEPT_S - 1, (1, [2], [0]), id="the old one is still published"),
        pytest.param(T + 1000 + KEPT_S, (1, [2], []), id="until its last token is over"),
        pytest.param(T + 200_000, (2, [], [1]), id="and so on"),
        pytest.param(T + 900_000, (2, [], []), id="the last one signs until there is another"),
    ],
)
def test_roles_follow_from_the_times_alone(now: int, expected: tuple[int, list[int], list[int]]) -> None:
    assert roles(schedule(T, T + 1000, T + 200_000), now) == expected


def test_two_changes_within_a_tokens_life_retire_both() -> None:
    assert roles(schedule(T, T + 10, T + 20), T + 25) == (2, [], [0, 1])


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((), id="none"),
        pytest.param((TimedKey(T, KEYS[0]), TimedKey(T + 1, KEYS[0])), id="one key twice"),
        pytest.param((TimedKey(T, KEYS[0]), TimedKey(T, KEYS[1])), id="one time twice"),
        pytest.param((TimedKey(T + 1, KEYS[0]), TimedKey(T, KEYS[1])), id="out of order"),
    ],
)
def test_a_schedule_that_says_two_things_is_refused(keys: tuple[TimedKey, ...]) -> None:
    with pytest.raises(KeyRefusedError):
        KeySchedule(keys)


LAGS = st.tuples(*[st.integers(0, MOUNT_LAG_S)] * 3)


@given(
    signs_after_s=st.integers(-50_000, 50_000),
    lags_s=LAGS,
    signed_after_s=st.integers(-10, 5000),
    asked_before_s=st.integers(0, KEYS_MAX_AGE_S + REFRESH_S),
    life_s=st.integers(1, 3600),
)
def test_a_key_that_signs_is_known_to_every_consumer_however_late_it_was_added(
    signs_after_s: int, lags_s: tuple[int, ...], signed_after_s: int, asked_before_s: int, life_s: int
) -> None:
    """A key is added at ``T``, before its time or long after it, and reaches each running replica at another time."""
    old, new = TimedKey(T - 100_000, KEYS[0]), TimedKey(T + signs_after_s, KEYS[1])

    def at(replica: int, now: int) -> KeySchedule:
        running = KeySchedule((old,))
        arrived = T + lags_s[replica]
        return running if now < arrived else running.followed_by((old, new), arrived)

    keep_s = life_s + GRACE_S
    starts = sorted({T + ANNOUNCE_S, T + max(ANNOUNCE_S, signs_after_s), T})
    for now in (start + signed_after_s for start in starts):
        for signing, asked in product(range(3), range(3)):
            signer = at(signing, now).at(now, keep_s=keep_s).active
            for seen in (
                now - asked_before_s,
                now + life_s,
            ):  # the cached set is that old; the token is used until then
                assert at(asked, seen).at(seen, keep_s=keep_s).find(signer.kid) is not None


def test_replicas_whose_clocks_differ_by_a_minute_publish_what_the_others_sign_by() -> None:
    times = (T, T + 1000)
    for now, skew_s in product(range(T + 900, T + 1100, 10), (-60, 60)):
        signer = schedule(*times).at(now + skew_s, keep_s=KEEP_S).active
        assert schedule(*times).at(now, keep_s=KEEP_S).find(signer.kid) is not None


def follow(before: KeySchedule, now: int, *numbers: int, times: dict[int, int] | None = None) -> KeySchedule:
    """Return the schedule of a running replica whose directory holds these of ``KEYS`` at ``now``."""
    at = {0: T, 1: T + 1000, 2: T + 2000, 3: T + 3000, **(times or {})}
    keys = sorted((TimedKey(at[number], KEYS[number]) for number in numbers), key=lambda one: one.signs_from)
    return before.followed_by(tuple(keys), now)


def test_a_key_that_came_too_late_for_its_time_is_held_back_and_told() -> None:
    before = schedule(T)
    late = T + 1000 - ANNOUNCE_S + 50
    assert follow(before, late - 50, 0, 1).held_back(before) == ()
    after = follow(before, late, 0, 1)
    assert [(one.signs_from, one.due_at) for one in after.held_back(before)] == [(T + 1000, T + 1050)]
    assert roles(after, T + 1049) == (0, [1], [])
    assert roles(after, T + 1050) == (1, [], [0])
    again = follow(after, T + 1040, 0, 1)  # another reload changes nothing
    assert again.held_back(after) == ()
    assert roles(again, T + 1050) == (1, [], [0])


@given(
    signs_after_s=st.one_of(st.integers(-5000, 5000), st.integers(-LATE_S, 0)),
    lags_s=LAGS,
    started_after_s=st.one_of(st.integers(0, 6000), st.integers(0, 2 * LATE_S)),
    signed_after_s=st.integers(-10, 5000),
    asked_before_s=st.integers(0, KEYS_MAX_AGE_S + REFRESH_S),
    life_s=st.integers(1, 3600),
)
def test_a_replica_that_starts_and_those_that_run_know_each_others_keys(
    signs_after_s: int,
    lags_s: tuple[int, ...],
    started_after_s: int,
    signed_after_s: int,
    asked_before_s: int,
    life_s: int,
) -> None:
    """A key is added at ``T``, before its time or up to a day after it; one replica starts at any time after that."""
    old, new = TimedKey(T - 200_000, KEYS[0]), TimedKey(T + signs_after_s, KEYS[1])
    starts_at = T + lags_s[2] + started_after_s

    def at(replica: int, now: int) -> KeySchedule:
        if replica == 2 and now >= starts_at:
            return KeySchedule((old, new)).started(starts_at)
        running = KeySchedule((old,))
        arrived = T + lags_s[replica]
        return running if now < arrived else running.followed_by((old, new), arrived)

    keep_s = life_s + GRACE_S
    for now in (start + signed_after_s for start in (starts_at, T + signs_after_s, T + ANNOUNCE_S)):
        for signing, asked in product(range(3), range(3)):
            signer = at(signing, now).at(now, keep_s=keep_s).active
            for seen in (now - asked_before_s, now + life_s):
                assert at(asked, seen).at(seen, keep_s=keep_s).find(signer.kid) is not None


@pytest.mark.parametrize("late_s", [1, ANNOUNCE_S + 1, 5 * 3600, LATE_S])
def test_a_replica_that_starts_as_a_late_key_comes_signs_by_the_key_before(late_s: int) -> None:
    """Whoever runs already holds the key back, and a third one may not have it yet."""
    added = T + 1000 + late_s
    starting, running = schedule(T, T + 1000).started(added), follow(schedule(T), added, 0, 1)
    for now in (added, added + ANNOUNCE_S - 1):
        assert roles(starting, now) == roles(running, now) == (0, [1], [])
    for now in (added + ANNOUNCE_S, added + ANNOUNCE_S + KEEP_S):
        assert roles(starting, now) == roles(running, now) == (1, [], [0])


def test_a_replica_that_starts_long_after_a_key_signs_by_it_and_by_the_first_key_at_once() -> None:
    assert roles(schedule(T, T + 1000).started(T + 1000), T + 1000) == (0, [1], [])
    assert roles(schedule(T, T + 1000).started(T + 1000), T + 1000 + ANNOUNCE_S) == (1, [], [0])
    later = T + 1000 + LATE_S + ANNOUNCE_S
    assert roles(schedule(T, T + 1000).started(later - 1), later - 1)[0] == 0
    assert roles(schedule(T, T + 1000).started(later), later)[0] == 1
    assert roles(schedule(T).started(T), T) == (0, [], [])


def test_where_keys_follow_within_a_day_a_replica_that_starts_signs_by_one_that_the_others_publish() -> None:
    hourly = (T, T + 3600, T + 7200, T + 10_800)
    now = T + 10_800 + 1800
    starting, running = schedule(*hourly).started(now), schedule(*hourly)
    signer = starting.at(now, keep_s=KEEP_S).active
    assert signer.kid == KEYS[0].kid
    assert running.at(now + ANNOUNCE_S + KEEP_S, keep_s=KEEP_S).find(signer.kid) is not None
    assert roles(starting, now + ANNOUNCE_S)[0] == 3


def test_a_replica_without_its_signing_key_signs_by_no_earlier_one_and_by_no_later_one_before_its_time() -> None:
    signing = follow(schedule(T, T + 1000), T + 1500, 0, 1, 2)
    without = follow(signing, T + 1500, 0, 2)
    ring = without.at(T + 1500, keep_s=KEEP_S)
    assert ring.signer is None
    assert {key.kid for key in ring.published} == {KEYS[0].kid, KEYS[2].kid}
    with pytest.raises(Unavailable) as refused:
        _ = ring.active
    assert refused.value.reason is Reason.NOT_READY
    assert follow(without, T + 1600, 0, 2).at(T + 1600, keep_s=KEEP_S).signer is None  # also after another reload
    assert without.at(T + 2000, keep_s=KEEP_S).active.kid == KEYS[2].kid  # held back for no other key
    assert roles(follow(without, T + 1600, 0, 1, 2), T + 1600)[0] == 1  # it is back


def test_in_place_of_a_stolen_key_a_new_one_signs_at_its_time() -> None:
    signing = schedule(T, T + 1000)
    assert roles(follow(signing, T + 1500, 0, 3, times={3: T + 1490}), T + 1500)[0] == 3


def test_a_signing_key_whose_file_has_another_name_goes_on_signing() -> None:
    renamed = follow(schedule(T, T + 1000), T + 1500, 0, 1, times={1: T + 900})
    assert roles(renamed, T + 1500) == (1, [], [0])


def test_only_keys_of_the_future_sign_nothing_but_a_clock_may_be_a_minute_behind() -> None:
    assert schedule(T).at(T - 60, keep_s=KEEP_S).active.kid == KEYS[0].kid
    assert schedule(T).at(T - 61, keep_s=KEEP_S).signer is None


def test_keys_in_memory_rotate_too_and_announce_the_next_one() -> None:
    keys = EphemeralKeys(T)
    first = keys.at(T, keep_s=KEEP_S)
    assert (first.announced, first.retired) == ((), ())
    before = keys.at(T + EPHEMERAL_PERIOD_S - ANNOUNCE_S - 1, keep_s=KEEP_S)
    assert before.published == first.published
    announcing = keys.at(T + EPHEMERAL_PERIOD_S - ANNOUNCE_S, keep_s=KEEP_S)
    assert announcing.active == first.active
    assert len(announcing.announced) == 1
    rotated = keys.at(T + EPHEMERAL_PERIOD_S, keep_s=KEEP_S)
    assert (rotated.active, rotated.retired) == (announcing.announced[0], (first.active,))
    assert keys.at(T + EPHEMERAL_PERIOD_S + KEEP_S + ANNOUNCE_S, keep_s=KEEP_S).retired == ()


def test_keys_in_memory_that_nobody_asked_for_in_days_are_announced_before_they_sign() -> None:
    keys = EphemeralKeys(T)
    later = T + 7 * EPHEMERAL_PERIOD_S
    ring = keys.at(later, keep_s=KEEP_S)
    assert len(ring.announced) == 1
    assert keys.at(later + ANNOUNCE_S - 1, keep_s=KEEP_S).active == ring.active
    assert keys.at(later + ANNOUNCE_S, keep_s=KEEP_S).active == ring.announced[0]


def test_keys_in_memory_do_not_pile_up() -> None:
    keys = EphemeralKeys(T)
    published = [
        len(keys.at(T + hour * 3600, keep_s=KEEP_S).published) + len(keys._schedule.keys) for hour in range(24 * 10)
    ]
    assert max(published) <= 6


def test_a_ring_signs_with_the_key_in_force() -> None:
    made = schedule(T, T + 1000)
    kids = [parse_bearer(made.at(now, keep_s=1).active.sign({"iss": "i"})).kid for now in (T, T + 1000)]
    assert kids == [KEYS[0].kid, KEYS[1].kid]


def test_a_clock_that_was_ahead_takes_the_signing_key_from_nobody() -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    keys = (TimedKey(1_790_000_000, first), TimedKey(1_790_000_000 + 30 * 86400, second))
    schedule = KeySchedule(keys)
    ahead = schedule.followed_by(keys, 1_790_000_000 + 31 * 86400)
    back = ahead.followed_by(keys, 1_790_000_000 + 200)
    for one in (ahead, back):
        signer = one.signer_at(1_790_000_000 + 200)
        assert signer is not None
        assert signer.key is first
    later = back.signer_at(1_790_000_000 + 31 * 86400)
    assert later is not None
    assert later.key is second
