"""The ids and handles that the native engine makes: of the system's random octets, each used once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.native import module, needs_native
from tests.proxy.engines import EngineWorld, warm_request

pytestmark = needs_native

OCTETS: Final = 43 + 32 + 16 + 32  # of a handle, and of the ids of a request, its span and its trace


class System:
    """The system's source, with every octet the same, and the number of its blocks."""

    def __init__(self, octet: int) -> None:
        self.octet = octet
        self.blocks = 0

    def __call__(self, count: int) -> bytes:
        self.blocks += 1
        return bytes([self.octet]) * count


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    module().forget_random()
    yield
    module().forget_random()  # what a test has made up is used by no other


def named(world: EngineWorld) -> bytes:
    """Return what the agent is sent, with the handle and the ids of one more request."""
    before = len(world.agent_transport.writes)
    world.exchange(warm_request())
    return b"".join(world.agent_transport.writes[before:])


def handle_of(sent: bytes) -> str:
    """Return the handle in a request to the agent."""
    found = re.search(rb"delegation-handle: ([A-Za-z0-9_-]{43})\r\n", sent)
    assert found is not None
    return found[1].decode()


async def test_they_are_spelled_from_the_systems_octets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = EngineWorld("native", tmp_path)
    named(world)  # Python remembers the permit
    module().forget_random()
    monkeypatch.setattr(os, "urandom", System(0b1011_1110))
    sent = named(world)
    assert (handle_of(sent), world.taken) == ("-" * 43, 1)  # the 62nd of the alphabet
    assert b"delegation-request-id: %b\r\n" % (b"e" * 32) in sent
    assert b"traceparent: 00-%b-%b-" % (b"e" * 32, b"e" * 16) in sent
    await world.log.close()


async def test_no_octet_is_used_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = EngineWorld("native", tmp_path)
    named(world)
    system = System(0)
    module().forget_random()
    monkeypatch.setattr(os, "urandom", system)
    for _ in range(400):
        named(world)
    assert world.taken == 400
    assert system.blocks >= 400 * OCTETS / 4096
    await world.log.close()


async def test_handles_and_ids_differ(tmp_path: Path) -> None:
    world = EngineWorld("native", tmp_path)
    sent = [named(world) for _ in range(1000)]
    assert len({handle_of(request) for request in sent}) == 1000
    assert len({request[request.index(b"delegation-request-id: ") :][:55] for request in sent}) == 1000
    await world.log.close()


def test_a_forked_process_gives_none_that_its_parent_gives() -> None:
    take = module().random_handle
    take()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, "".join(take() for _ in range(20)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    given = os.read(ours, 20 * 43).decode()
    os.close(ours)
    os.close(theirs)
    assert len(given) == 20 * 43
    assert not {given[at : at + 43] for at in range(0, len(given), 43)} & {take() for _ in range(60)}
