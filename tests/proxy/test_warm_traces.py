"""Exported traces by both engines: the same spans and logs for the same bytes, and the same decision to record them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from sidecar.engine import Engine
from sidecar.observe.telemetry.entries import Traces
from tests.fuzz.mutate import Mutator
from tests.native import needs_native
from tests.proxy import test_warm_messages_in, test_warm_messages_out, test_warm_outbound
from tests.proxy.engines import EngineWorld, OutboundWorld, warm_call, warm_request
from tests.proxy.messages import FOUND
from tests.proxy.test_warm import EVENTS, HARMLESS, WARM, Event, _half_an_answer, _lasts, answers, messages, nothing
from tests.proxy.traced import Step, both, traced
from tests.proxy.warm import ANSWER

pytestmark = needs_native

CALL = test_warm_outbound.CALL
TRACE, PARENT, CALL_IN = "a" * 32, "b" * 16, "c" * 32
UNSAMPLED = f"traceparent: 00-{TRACE}-{PARENT}-00\r\n"
SAMPLED = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n"
OF_MESH = f"Delegation-Call: {CALL_IN}\r\n"


def parents(spans: list[ReadableSpan]) -> list[str | None]:
    return [None if span.parent is None else f"{span.parent.span_id:016x}" for span in spans]


@pytest.mark.parametrize("kind", [EngineWorld, OutboundWorld])
async def test_a_warm_request_below_a_span_that_is_recorded_has_the_same_span(
    tmp_path: Path, kind: type[EngineWorld]
) -> None:
    data = WARM if kind is EngineWorld else CALL
    spans = await both(kind, tmp_path, [(data, ANSWER, nothing)] * 3, ratio=0.0, least_taken=2)
    assert parents(spans) == [PARENT] * 3
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert len({span.context.span_id for span in spans}) == 3


@pytest.mark.parametrize(
    ("fields", "ratio", "recorded", "parent"),
    [
        (SAMPLED, 0.0, True, PARENT),
        (SAMPLED.replace("-01", "-03"), 0.0, True, PARENT),
        (SAMPLED.replace("-01", "-ff"), 0.0, True, PARENT),
        (UNSAMPLED, 1.0, False, None),
        (UNSAMPLED.replace("-00\r", "-02\r"), 1.0, False, None),
        ("", 1.0, True, None),
        ("", 0.0, False, None),
        (OF_MESH, 1.0, True, None),
        (OF_MESH + UNSAMPLED, 1.0, False, None),
    ],
)
@pytest.mark.parametrize("event", [nothing, _half_an_answer, _lasts], ids=["native", "handed over", "lasting"])
async def test_the_caller_decides_or_the_ratio_and_what_goes_on_says_so(
    tmp_path: Path, fields: str, ratio: float, recorded: bool, parent: str | None, event: Event
) -> None:
    data = warm_request(fields=fields)
    steps: list[Step] = [(warm_request(), ANSWER, nothing), (data, ANSWER, event), (data, ANSWER, nothing)]
    spans = await both(EngineWorld, tmp_path, steps, ratio=ratio, least_taken=2)
    ours = spans[1:] if ratio else spans
    assert parents(ours) == [parent] * (2 if recorded else 0)


@pytest.mark.parametrize("engine", ["python", "native"])
async def test_of_new_traces_the_share_is_recorded_that_their_ids_decide(tmp_path: Path, engine: Engine) -> None:
    world, exported = traced(EngineWorld, engine, tmp_path, Traces(0.5))
    for _ in range(200):
        world.exchange(warm_request())
    await world.records()
    went_on = [one.decode().split("-")[1:] for one in world.went_on]
    recorded = {(f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") for span in exported.spans}
    assert recorded == {(trace, span) for trace, span, flags in went_on if flags == "03"}
    assert all((int(trace[16:], 16) < 1 << 63) == (flags == "03") for trace, _, flags in went_on)
    assert {flags for *_, flags in went_on} == {"02", "03"}
    assert world.taken == (199 if engine == "native" else 0)


@pytest.mark.parametrize("inbound", ["python", "native"])
@pytest.mark.parametrize("outbound", ["python", "native"])
@pytest.mark.parametrize(("fields", "recorded"), [(SAMPLED, True), (UNSAMPLED, False)])
async def test_a_call_without_traceparent_continues_its_request_whoever_served_that(
    tmp_path: Path, inbound: Engine, outbound: Engine, fields: str, recorded: bool
) -> None:
    """Requests are remembered by their call id, for both engines together."""
    traces = Traces(1.0)
    (tmp_path / "out").mkdir()
    peer, _ = traced(EngineWorld, inbound, tmp_path, traces)
    agent, exported = traced(OutboundWorld, outbound, tmp_path / "out", traces)
    for _ in range(2):
        peer.exchange(warm_request(fields=OF_MESH + fields))
        agent.exchange(warm_call(agent))
    assert (peer.taken, agent.taken) == (inbound == "native", 2 * (outbound == "native"))
    requests = [one.decode().split("-") for one in peer.went_on]
    calls = [one.decode().split("-") for one in agent.went_on]
    assert [call[1] for call in calls] == [request[1] for request in requests] == [TRACE] * 2
    assert {one[3] for one in (*requests, *calls)} == {"01" if recorded else "00"}
    await peer.log.close()
    await agent.records()
    found = zip(exported.spans, parents(exported.spans), strict=True)
    spans = {f"{span.context.span_id:016x}": parent for span, parent in found}
    assert [spans.get(call[2]) for call in calls] == [request[2] if recorded else None for request in requests]


@pytest.mark.parametrize("field", ["tracestate: a=1", f"traceparent: 01-{TRACE}-{PARENT}-01-more", "traceparent: x"])
async def test_contexts_that_the_native_engine_does_not_read_are_continued_by_python(
    tmp_path: Path, field: str
) -> None:
    odd = warm_request(fields=f"{SAMPLED if 'state' in field else ''}{field}\r\n")
    steps = [(one, ANSWER, nothing) for one in (WARM, WARM, odd, WARM)]
    spans = await both(EngineWorld, tmp_path, steps, least_taken=2)
    assert len(spans) == 4


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("fields", [SAMPLED, UNSAMPLED, ""], ids=["recorded", "not recorded", "begins here"])
async def test_what_happens_meanwhile_ends_alike(tmp_path: Path, event: Event, fields: str) -> None:
    data = warm_request(fields=f"{fields}X-Own: 1\r\n") if event.__name__ != "_is_looked_at" else WARM
    await both(EngineWorld, tmp_path, [(data, ANSWER, nothing)] * 2 + [(data, ANSWER, event)], least_taken=2)


@pytest.mark.parametrize("event", test_warm_outbound.HARMLESS, ids=lambda event: event.__name__)
async def test_what_happens_to_a_call_ends_alike(tmp_path: Path, event: Event) -> None:
    await both(OutboundWorld, tmp_path, [(CALL, ANSWER, nothing), (CALL, ANSWER, event)], least_taken=2)


@pytest.mark.parametrize("seed", range(2))
async def test_many_things_that_happen_end_alike(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    requests = [warm_request(fields=fields + OF_MESH) for fields in (SAMPLED, UNSAMPLED, "")]
    near = Mutator([WARM, *requests, *messages()], [SAMPLED.encode(), b"\r\n", b"tracestate: a=1\r\n"], seed=seed)
    steps: list[Step] = [(data, ANSWER, nothing) for data in islice(near, 200)]
    for _ in range(150):
        event = random.choice([nothing, *(one for one in HARMLESS if one.__name__ != "_is_looked_at")])
        steps.append((random.choice(requests), random.choice([ANSWER, *answers()]), event))
    await both(EngineWorld, tmp_path, steps, least_taken=50)


async def test_messages_have_the_same_spans(tmp_path: Path) -> None:
    inbound: list[Step] = [(data, FOUND, nothing) for data in test_warm_messages_in.WARM * 2]
    spans = await both(EngineWorld, tmp_path, inbound, least_taken=len(test_warm_messages_in.WARM))
    assert "tools/call search" in {span.name for span in spans}
    (tmp_path / "out").mkdir()
    outbound: list[Step] = [(data, FOUND, nothing) for data in test_warm_messages_out.WARM * 2]
    spans = await both(OutboundWorld, tmp_path / "out", outbound, least_taken=len(test_warm_messages_out.WARM))
    assert "tools/call search" in {span.name for span in spans}
