"""Checkpoints of a record stream: of its newest record, again only after another one, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from delegation_core.checkpoint import Checkpoint, Head, parse_checkpoint
from delegation_core.errors import Reason, Unavailable
from delegation_core.records.hash_chain import line_hash
from sidecar.observe.access_log import AccessLog
from sidecar.observe.countersigning import Countersigning
from sidecar.observe.metrics import Metrics
from sidecar.observe.scrape import render
from sidecar.sts.keys import SigningKey
from tests.fakes.sink import FakeSink
from tests.fakes.tokens import ISSUER, NOW, WRITER

KEY = SigningKey.generate()


class Service:
    """Signs every head that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Head] = []
        self.failure: Exception | None = None

    async def countersign(self, head: Head) -> Checkpoint:
        self.asked.append(head)
        if self.failure is not None:
            raise self.failure
        return KEY.countersign(head, issuer=ISSUER, workload=WRITER, at=NOW)


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def log(sink: FakeSink) -> AsyncIterator[AccessLog]:
    log = AccessLog(sink, run="r1", metrics=Metrics())
    yield log
    await log.close()


async def test_a_checkpoint_names_the_newest_record_by_the_hash_of_its_line(
    sink: FakeSink, log: AccessLog, service: Service
) -> None:
    countersigning = Countersigning(log, service.countersign)
    log.event("started")
    log.event("identity.rotated")
    await countersigning.checkpoint()
    *_, last, record = sink.wait_for_records(3)
    line = sink.data.splitlines()[1]
    checkpoint = parse_checkpoint(str(record["checkpoint"]), workload=WRITER, run="r1")
    assert last["seq"] == 2
    assert service.asked == [checkpoint.head] == [Head(run="r1", seq=2, hash=line_hash(line))]
    assert record["event"] == "records.countersigned"


async def test_its_own_record_alone_asks_for_no_other(log: AccessLog, service: Service) -> None:
    countersigning = Countersigning(log, service.countersign)
    await countersigning.checkpoint()
    assert service.asked == []  # there is no record yet
    log.event("started")
    await countersigning.checkpoint()
    await countersigning.checkpoint()
    assert [head.seq for head in service.asked] == [1]
    log.event("identity.rotated")
    await countersigning.checkpoint()
    assert [head.seq for head in service.asked] == [1, 3]  # the checkpoint itself is the second


@pytest.mark.parametrize("failure", [Unavailable(Reason.STS_UNAVAILABLE), TimeoutError()])
async def test_a_failure_is_counted_told_once_and_made_good_for(
    log: AccessLog, service: Service, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    countersigning = Countersigning(log, service.countersign)
    log.event("started")
    service.failure = failure
    await countersigning.checkpoint()
    await countersigning.checkpoint()
    assert log.metrics.countersign_failures == 2
    assert [record.message for record in caplog.records] == ["records are not countersigned"]
    assert log.metrics.uncountersigned is not None
    assert log.metrics.uncountersigned() == 1
    service.failure = None
    await countersigning.checkpoint()
    assert log.metrics.uncountersigned() == 0
    assert [record.message for record in caplog.records][1:] == ["records are countersigned again"]


async def test_they_come_at_intervals_and_once_more_at_the_end(log: AccessLog, service: Service) -> None:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    countersigning = Countersigning(log, service.countersign, every_s=0.01, close=close)
    running = asyncio.ensure_future(countersigning.run())
    log.event("started")
    async with asyncio.timeout(5):
        while not service.asked:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    log.event("identity.rotated")
    await countersigning.close()
    assert service.asked[-1].seq == log.last_seq - 1
    assert closed.is_set()


async def test_records_since_the_last_checkpoint_are_exported_only_where_somebody_countersigns(
    log: AccessLog, service: Service
) -> None:
    """Alerts and dashboard tell a stream without checkpoints from one that nobody was asked to sign by this."""
    assert b"sidecar_records_uncountersigned" not in render(log.metrics)
    assert b"sidecar_countersign_failures_total 0.0" in render(log.metrics)
    Countersigning(log, service.countersign)
    log.event("started")
    assert b"sidecar_records_uncountersigned 1.0" in render(log.metrics)
