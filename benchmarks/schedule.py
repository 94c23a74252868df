"""Order of the requests and tokens of an open loop, fixed before the run. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Pairs of a request and a token, by number. The first ``warm`` pairs are sent before the schedule begins."""

    pairs: tuple[tuple[int, int], ...]
    warm: int

    @property
    def text(self) -> str:
        """The plan as the load generators read it."""
        return "".join(f"{request} {token}\n" for request, token in self.pairs)


def planned(weights: Sequence[int], *, users: int, cold: float, calls: int, seed: int) -> Plan:
    """Plan this many calls.

    Each block of ``sum(weights)`` calls has each request as often as its weight. ``floor(n * cold)`` of ``n`` calls use
    a new token: those from number ``users`` on, in order, each once. The others use the tokens of all users, in random
    order. The warm part uses the token of each user once, with the requests from number ``len(weights)`` on, which are
    answered at once.
    """
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    repeated = [kind for kind, weight in enumerate(weights) for _ in range(weight)]
    warm = [(len(weights) + kind, user) for user, kind in zip(range(users), _shuffled(order, repeated), strict=False)]
    kinds, known = _shuffled(order, repeated), _shuffled(order, range(users))
    scheduled, fresh = [], users
    for number in range(calls):
        is_cold = int((number + 1) * cold) > int(number * cold)
        scheduled.append((next(kinds), fresh if is_cold else next(known)))
        fresh += is_cold
    return Plan((*warm, *scheduled), len(warm))


def tokens_of(plan: Plan) -> int:
    """Return the number of tokens that a plan needs."""
    return 1 + max(token for _, token in plan.pairs)


def _shuffled(order: random.Random, values: Sequence[int]) -> Iterator[int]:
    while True:
        yield from order.sample(values, len(values))
