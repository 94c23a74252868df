"""``python -m tests.proxy.differ``: both engines get random requests and answers for some minutes, and must not differ.

The inputs are near those of the corpora, as in ``test_warm.py`` and ``test_warm_outbound.py``, with another seed each
round, and something may happen between a request and its answer. In half of the rounds traces are exported, and spans
must not differ either. The exit code is 1 at the first difference, whose
bytes and seed are printed; without the native engine it is 2.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

from sidecar.engine import Engine, native_module
from sidecar.observe.telemetry.entries import Traces
from tests.fuzz.mutate import Mutator, with_named_field
from tests.proxy import (
    test_warm,
    test_warm_facts_out,
    test_warm_messages_in,
    test_warm_messages_out,
    test_warm_outbound,
)
from tests.proxy.engines import EngineWorld, LoginWorld, OutboundWorld, warm_request
from tests.proxy.messages import EVENTS, FOUND, TASK
from tests.proxy.messages import answer as answer_of
from tests.proxy.shapes import Shapes
from tests.proxy.test_warm import Event, nothing
from tests.proxy.test_warm_pieces import cut
from tests.proxy.traced import Exported, told, traced
from tests.proxy.warm import ANSWER

ROUND: Final = 400  # exchanges with the same two worlds
_WORDS: Final = [
    b"\r\n", b"content-length: 3\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"%2e", b"//",
    b"Delegation-Handle: ", b"Authorization: Bearer ", b"Delegation-Call: ", b"traceparent: ", b"Host: ", b"chunked",
    b"HTTP/1.1", b"?", b"#", b";", b"\t", b"\x80", b"Delegation-Subject: ", b"Transfer-Encoding: ", b"close",
]  # fmt: skip


Step = tuple[bytes | tuple[bytes, ...], bytes, Event]
"""A request, or its pieces, an answer, and what happens between them."""


class Kind:
    """One side: the worlds of both engines, requests that are served natively, and what inputs are near."""

    def __init__(
        self,
        world: type[EngineWorld],
        warm: Sequence[bytes],
        messages: Sequence[bytes],
        events: Sequence[Event],
        *,
        answers: Sequence[bytes] = (ANSWER,),
        words: Sequence[bytes] = (),
    ) -> None:
        self.world = world
        self.warm = list(warm)
        self.messages = list(messages)
        self.events = list(events)
        self.answers = list(answers)
        self.words = [*_WORDS, *words]

    def steps(self, random: Random) -> Iterator[Step]:
        """Yield (request, answer, event between them): one of the three is odd, or none."""
        requests = iter(Mutator([*self.warm, *self.warm, *self.messages], self.words, seed=random.getrandbits(64)))
        answers = iter(Mutator([*self.answers, *test_warm.answers()], self.words, seed=random.getrandbits(64)))
        while True:
            warm, odd = random.choice(self.warm), random.random()
            if odd < 0.05:
                yield with_named_field(random.choice(self.warm), random), random.choice(self.answers), nothing
            elif odd < 0.5:
                yield next(requests), random.choice(self.answers), nothing
            elif odd < 0.7:
                yield warm, next(answers), nothing
            elif odd < 0.8:
                yield self.warm[0], self.answers[0], random.choice(self.events)  # some look at this request
            elif odd < 0.9:
                answer = next(answers) if random.random() < 0.5 else b""
                answer = answer or random.choice(self.answers)
                yield (warm, *cut(answer, random.randrange(len(answer))))
            else:
                yield warm, random.choice(self.answers), nothing


def inbound() -> Kind:
    """Return what peers send."""
    warm = [test_warm.WARM, warm_request("GET", "/docs/a?b=c"), warm_request("GET", "/docs/a")]
    last = warm_request(fields="Connection: close\r\n")
    return Kind(EngineWorld, [*warm, last], test_warm.messages(), test_warm.HARMLESS)


def outbound() -> Kind:
    """Return what the agent sends."""
    last = test_warm_outbound.CALL.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    warm = [test_warm_outbound.CALL, test_warm_outbound.NAMED, last]
    events: list[Any] = [*test_warm_outbound.HARMLESS, *test_warm_facts_out.HARMLESS]
    return Kind(OutboundWorld, warm, test_warm_outbound.calls(), events)


def logins() -> Kind:
    """Return what the agent at an entry sends for a user's login, while facts that its calls hold by change."""
    warm = [test_warm_outbound.CALL, test_warm_outbound.NAMED]
    events: list[Any] = [*test_warm_outbound.HARMLESS, *test_warm_facts_out.HARMLESS]
    return Kind(LoginWorld, warm, test_warm_outbound.calls(), events)


_OF_MESSAGES: Final = (
    FOUND,
    TASK,
    EVENTS,
    answer_of({}, "Mcp-Session-Id: s1"),
    answer_of({}, "Delegation-Reason: internal"),
)


def inbound_messages() -> Kind:
    """Return messages of MCP and A2A that peers send."""
    of = test_warm_messages_in
    warm, near, events = of.WARM, [*of.REFUSED, of.GET_TASK], of.HARMLESS_TO_MESSAGES
    return Kind(EngineWorld, warm, near, events, answers=_OF_MESSAGES, words=of.WORDS)


def outbound_messages() -> Kind:
    """Return messages of MCP and A2A that the agent sends."""
    of = test_warm_messages_out
    events = test_warm_outbound.HARMLESS
    return Kind(OutboundWorld, of.WARM, of.WARM, events, answers=_OF_MESSAGES, words=of.WORDS)


class Shaped(Kind):
    """Whole messages in which some facts are odd, and answers of all kinds; each may come in two pieces."""

    def steps(self, random: Random) -> Iterator[Step]:
        """Yield (request or its pieces, answer, event between them)."""
        shapes = Shapes(random, inbound=self.world is EngineWorld)
        while True:
            data, answer = shapes.request(), random.choice(self.answers)
            if random.random() < 0.5:
                answer = shapes.answer()
            event = random.choice(self.events) if random.random() < 0.1 else nothing
            if event is nothing and random.random() < 0.1:  # else a piece may count as one that comes after the event
                answer, event = cut(answer, random.randrange(len(answer)))
            at = random.randrange(len(data))
            yield ((data[:at], data[at:]) if random.random() < 0.1 else data), answer, event


def inbound_shapes() -> Kind:
    """Return messages of many shapes that peers send, for two users."""
    of = test_warm_messages_in
    events = [one for one in of.HARMLESS_TO_MESSAGES if one.__name__ != "_calls_out"]  # which knows one user
    return Shaped(EngineWorld, of.WARM, [], events, answers=_OF_MESSAGES)


def outbound_shapes() -> Kind:
    """Return messages of many shapes that the agent sends."""
    of = test_warm_messages_out
    return Shaped(OutboundWorld, of.WARM, [], test_warm_outbound.HARMLESS, answers=_OF_MESSAGES)


KINDS: Final = (inbound, outbound, logins, inbound_messages, outbound_messages, inbound_shapes, outbound_shapes)


class _Bugs(logging.Handler):
    """Keeps what the native engine reports of itself: Python serves such requests, so nothing else would differ."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one report."""
        self.found.append(self.format(record))


async def compare(kind: Kind, seed: int, folder: Path) -> int:
    """Run one round, and return how many requests the native engine took.

    Raises:
        AssertionError: the engines differ in bytes, in a connection's end, in records or in spans, or the native one
            has a bug.
    """
    bugs = _Bugs()
    log = logging.getLogger("sidecar.native")
    log.addHandler(bugs)
    try:
        taken = await _compare(kind, seed, folder)
    finally:
        log.removeHandler(bugs)
    assert not bugs.found, bugs.found[0]
    return taken


async def _compare(kind: Kind, seed: int, folder: Path) -> int:
    steps = list(islice(kind.steps(Random(seed)), ROUND))
    traces = Random(seed).random() < 0.5
    python, of_python = _world(kind, "python", folder, traces=traces)
    native, of_native = _world(kind, "native", folder, traces=traces)
    for data, answer, between in steps:
        one, other = python.exchange(data, answer, between), native.exchange(data, answer, between)
        assert one == other, (data, answer, between.__name__, one, other)
        assert python.bound == native.bound, (data, answer, between.__name__, python.bound, native.bound)
    records, also = await python.records(), await native.records()
    assert records == also, [(one, other) for one, other in zip(records, also, strict=False) if one != other][:1]
    given = [piece for data, *_ in steps for piece in (data if isinstance(data, tuple) else (data,))]
    if of_python is not None and of_native is not None:
        spans, as_well = told(python, of_python, given), told(native, of_native, given)
        assert spans == as_well, [(one, other) for one, other in zip(spans, as_well, strict=False) if one != other][:1]
    assert python.counted == native.counted, (python.counted, native.counted)
    assert len(native.watch) == 0, "a forwarding outlives its request"
    assert not native.log.being_served(), "a record stays open"
    return native.taken


def _world(kind: Kind, engine: Engine, folder: Path, *, traces: bool) -> tuple[EngineWorld, Exported | None]:
    return traced(kind.world, engine, folder, Traces(1.0)) if traces else (kind.world(engine, folder), None)


async def run(minutes: float, seed: int) -> int:
    """Run rounds until the time is over. Return an exit code."""
    until = time.monotonic() + minutes * 60
    rounds = taken = 0
    kinds = [kind() for kind in KINDS]
    while time.monotonic() < until or not rounds:
        with tempfile.TemporaryDirectory() as folder:
            try:
                taken += await compare(kinds[rounds % len(kinds)], seed + rounds, Path(folder))
            except AssertionError as error:
                print(f"seed {seed + rounds}: the engines differ: {error.args[0] if error.args else error!r}")  # noqa: T201
                return 1
        rounds += 1
    print(f"{rounds * ROUND:,} exchanges, {taken:,} of them begun natively; no difference")  # noqa: T201
    return 0


def main() -> int:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.proxy.differ", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="0 is another one each time")
    options = parser.parse_args()
    if native_module() is None:
        print("the native engine is not installed: `make native` builds it", file=sys.stderr)  # noqa: T201
        return 2
    return asyncio.run(run(options.minutes, options.seed or secrets.randbelow(2**32)))


if __name__ == "__main__":
    sys.exit(main())
