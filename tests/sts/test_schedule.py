from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.delegation.bearer import parse_bearer
from sidecar.sts.keys import KeyRefusedError, SigningKey
from sidecar.sts.schedule import ANNOUNCE_S, EPHEMERAL_PERIOD_S, KEYS_MAX_AGE_S, EphemeralKeys, KeySchedule, TimedKey

T = 1_790_000_000
KEYS = [SigningKey.generate() for _ in range(4)]
KEEP_S = 100


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
        pytest.param(T - 1, (0, [1, 2], []), id="before its time the first key signs all the same"),
        pytest.param(T, (0, [1, 2], []), id="at its time"),
        pytest.param(T + 999, (0, [1, 2], []), id="to the last second"),
        pytest.param(T + 1000, (1, [2], [0]), id="the next takes over in its second"),
        pytest.param(T + 1000 + KEEP_S - 1, (1, [2], [0]), id="the old one is still published"),
        pytest.param(T + 1000 + KEEP_S, (1, [2], []), id="until its last token is over"),
        pytest.param(T + 2000, (2, [], [1]), id="and so on"),
        pytest.param(T + 9000, (2, [], []), id="the last one signs until there is another"),
    ],
)
def test_roles_follow_from_the_times_alone(now: int, expected: tuple[int, list[int], list[int]]) -> None:
    assert roles(schedule(T, T + 1000, T + 2000), now) == expected


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


@given(
    gaps=st.lists(st.integers(ANNOUNCE_S, 5000), min_size=3, max_size=3),
    signed_after_s=st.integers(0, 20_000),
    skew_s=st.integers(-60, 60),
    seen_before_s=st.integers(0, KEYS_MAX_AGE_S),
    life_s=st.integers(1, 3600),
)
def test_whoever_keeps_the_set_no_longer_than_he_may_knows_every_key_that_signs(
    gaps: list[int], signed_after_s: int, skew_s: int, seen_before_s: int, life_s: int
) -> None:
    """Each key was added ``ANNOUNCE_S`` before it signs; replicas' clocks differ by a minute."""
    times = [T, T + gaps[0], T + gaps[0] + gaps[1], T + sum(gaps)]
    now = T + signed_after_s

    def there(at: int) -> KeySchedule:
        return schedule(*(time for time in times if time == T or time - ANNOUNCE_S <= at))

    keep_s = life_s + 120
    token = there(now).at(now + skew_s, keep_s=keep_s).active
    fetched = max(now - seen_before_s, T)
    assert there(fetched).at(fetched, keep_s=keep_s).find(token.kid) is not None
    used = now + life_s  # for the token's lifetime, another replica still publishes its key
    assert there(used).at(used - skew_s, keep_s=keep_s).find(token.kid) is not None


def test_a_key_that_came_too_late_for_its_time_is_noticed() -> None:
    before = schedule(T)
    after = schedule(T, T + 5000, T + 9000)
    assert after.announced_late(before, T + 5000 - ANNOUNCE_S) == ()
    assert [one.signs_from for one in after.announced_late(before, T + 5001 - ANNOUNCE_S)] == [T + 5000]


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
    assert keys.at(T + EPHEMERAL_PERIOD_S + KEEP_S, keep_s=KEEP_S).retired == ()


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
