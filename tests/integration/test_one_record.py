"""Every request with a complete first line leaves exactly one closing record, however it ends."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.integration.process import process
from tests.integration.world import PLANNER, WRITER, Kept, World, bearer, calling, mint, ok, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EACH = 5
FIRST = b"POST /draft HTTP/1.1\r\nhost: sidecar\r\n"


class Mess:
    """Callers of all kinds at one sidecar. The agent answers every request that is not marked to wait."""

    def __init__(self, world: World, port: int, tls: ssl.SSLContext) -> None:
        self.waiting = 0
        self._world = world
        self._port = port
        self._tls = tls
        world.agent.script = self._answer

    def _answer(self, head: bytes, _body: bytes) -> bytes | asyncio.Future[bytes]:
        if b"x-wait" not in head:
            return ok(b"done")
        self.waiting += 1
        return self._world.agent.never()

    async def says(self, raw: bytes, then: Callable[[Kept], Awaitable[object]]) -> None:
        """Send this on its own connection, run that, and close without a word."""
        async with self._world.kept(self._port, self._tls) as kept:
            kept.writer.write(raw)
            await kept.writer.drain()
            await then(kept)


def authorized(*lines: bytes) -> bytes:
    ((name, value),) = bearer(mint())
    return b"\r\n".join([FIRST.rstrip(b"\r\n"), f"{name}: {value}".encode(), *lines, b"", b""])


async def answered(kept: Kept) -> None:
    await kept.receive()


async def soon(_kept: Kept) -> None:
    await asyncio.sleep(0.3)  # time for the bytes to be read: nothing announces it


@pytest.mark.parametrize("workers", [1, 2])
async def test_every_request_that_began_has_exactly_one_record_whatever_became_of_it(
    world: World, workers: int
) -> None:
    tls = calling(await world.source(PLANNER), WRITER)
    async with process(world, drain_s=1.0, starts=workers, workers=workers) as sidecar:
        mess = Mess(world, sidecar.port, tls)
        kinds = [
            (b"", soon),  # no first line, no record
            (b"POST /dra", soon),
            (authorized(b"content-length: 0"), answered),
            (authorized(b"content-length: 10", b"") + b"..", soon),
            (FIRST, soon),
            (FIRST + b"a b: c\r\n\r\n", answered),
            (b"GET /nowhere HTTP/1.1\r\nhost: sidecar\r\n\r\n", answered),
            (b"GET /draft HTTP/1.1\r\nhost: sidecar\r\n\r\n", answered),
            (authorized(b"x-wait: 1", b"content-length: 0"), soon),
        ]
        await asyncio.gather(*(mess.says(raw, then) for raw, then in kinds for _ in range(EACH)))
        gone = mess.waiting
        in_flight = [
            asyncio.ensure_future(mess.says(authorized(b"x-wait: 1", b"content-length: 0"), answered))
            for _ in range(EACH)
        ]
        await until(lambda: mess.waiting == gone + EACH)
        assert await sidecar.end(signal.SIGTERM) == 1  # waiting requests were cut
        await asyncio.gather(*in_flight)
    records = [record for record in sidecar.records() if record["event"] == "request"]
    assert len({record["request_id"] for record in records}) == len(records)
    assert Counter(record["reason"] for record in records) == {
        "ok": EACH,
        "peer_gone": 3 * EACH,
        "bad_request": EACH,
        "no_route": EACH,
        "no_token": EACH,
        "draining": EACH,
    }
