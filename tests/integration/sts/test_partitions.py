"""Replicas of one token service that are cut off from each other, or whose disk is full, and a sidecar that asks one.

Each replica asks the others through links that a test can cut. All ages are of a clock that only the test moves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.keyset import VerificationKey, parse_jwks
from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.revocation import Kind
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.revocations import RevocationList, RevocationListSettings
from sidecar.identity.endpoint import Endpoint
from sidecar.sts.replicas import Replicas
from sidecar.sts.revocations import MAX_SILENCE_S, Register, RevocationSettings
from sidecar.sts.server import StsServer, StsSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.disk import disk
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sts import Mesh
from tests.fakes.sts_server import STS, StsIdentity
from tests.fakes.tokens import ISSUER, TRUST_DOMAIN, WRITER
from tests.integration.sts.test_replicas import order

pytestmark = pytest.mark.integration

ROUND_S: Final = 5.0
NOT_MERGED: Final = "orders of another replica are not merged"


class Link:
    """Leads to one replica until it is cut; then connections end without an answer."""

    def __init__(self) -> None:
        self.cut = False
        self.port = 0
        self.taken = 0  # connections
        self.to: tuple[str, int] | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, stack: AsyncExitStack) -> str:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        stack.callback(server.close)
        stack.callback(self.end)
        return f"https://127.0.0.1:{self.port}"

    def end(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.taken += 1
        if self.cut or self.to is None:
            writer.close()
            return
        try:
            there, onward = await asyncio.open_connection(*self.to)
        except OSError:
            writer.close()
            return
        self._writers.add(onward)
        await asyncio.gather(_copy(reader, onward), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@dataclass
class Clock:
    passed_s: float = 0.0

    def __call__(self) -> float:
        return self.passed_s


@dataclass
class Replica:
    mesh: Mesh
    register: Register
    server: StsServer
    replicas: Replicas
    links: list[Link]  # to the others

    def missing(self) -> str | None:
        return next((one for one in self.server.missing() if one.startswith("revocations")), None)


class Keys:
    """The token service's published keys."""

    def __init__(self, mesh: Mesh) -> None:
        self._keys = parse_jwks(mesh.ring.jwks())

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        return self._keys.find(kid)

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        raise Denied(Reason.UNKNOWN_KEY)


@dataclass
class Fleet:
    clock: Clock
    authority: TrustDomainAuthority
    stack: AsyncExitStack
    replicas: list[Replica] = field(default_factory=list)

    async def rounds(self, count: int = 1) -> None:
        """Let all replicas ask each other, every five seconds."""
        for _ in range(count):
            self.clock.passed_s += ROUND_S
            for one in self.replicas:
                await one.replicas.ask_all()

    def cut_off(self, number: int) -> None:
        """Cut all links to and from one replica."""
        alone = self.replicas[number]
        for link in [*alone.links, *(one for other in self.replicas for one in other.links)]:
            link.cut = link.cut or link in alone.links or link.to == alone.server.address

    def mend(self) -> None:
        for one in self.replicas:
            for link in one.links:
                link.cut = False

    def sidecar(self, number: int, *, max_stale_s: float = 60.0) -> RevocationList:
        """Return the list of a sidecar that asks one replica."""
        host, port = self.replicas[number].server.address
        endpoint = Endpoint(url=f"https://{host}:{port}/revocations", peer=STS)
        channel = StsChannel(endpoint, OwnIdentity(self.authority, WRITER), timeout_s=5.0, max_bytes=1_000_000)
        self.stack.push_async_callback(channel.close)
        settings = RevocationListSettings(
            issuer=ISSUER, endpoint=endpoint, algorithms=DEFAULT_ALGORITHMS, max_stale_s=max_stale_s
        )
        keys = Keys(self.replicas[number].mesh)
        return RevocationList(settings, channel, lambda: keys, monotonic=self.clock)


@asynccontextmanager
async def fleet(count: int, *files: Path) -> AsyncIterator[Fleet]:
    """Start replicas that hear each other; the first ones keep their orders in ``files``."""
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    async with AsyncExitStack() as stack:
        made = Fleet(Clock(), authority, stack)
        for number in range(count):
            links = [Link() for _ in range(count - 1)]
            urls = [await link.open(stack) for link in links]
            mesh = Mesh(start=int(time.time()))
            mesh.log.workload = STS
            source = StsIdentity(authority, STS)
            source.bundles = {TRUST_DOMAIN: mesh.svids.keys}
            settings = RevocationSettings(file=files[number] if number < len(files) else None, replicas=tuple(urls))
            register = mesh.service.register = Register(settings, mesh.log, monotonic=made.clock)
            register.load()
            server = StsServer(StsSettings(port=0, probe_port=0), service=mesh.service, source=source)
            await server.start()
            stack.push_async_callback(server.stop)
            assert server.revocations is not None
            replicas = Replicas(register, source, replica=server.revocations.replica)
            made.replicas.append(Replica(mesh, register, server, replicas, links))
        for one in made.replicas:
            others = [other.server.address for other in made.replicas if other is not one]
            for link, address in zip(one.links, others, strict=True):
                link.to = address
        yield made


@pytest.mark.parametrize("count", [2, 3])
async def test_a_sidecar_whose_replica_is_cut_off_knows_how_old_its_list_is_and_acts(count: int) -> None:
    async with fleet(count) as made:
        await made.rounds()
        near, far = made.sidecar(0), made.sidecar(1)
        made.cut_off(0)
        await made.replicas[1].register.add(order("a"))
        for passed_s in range(0, 60, 10):
            await near.poll()
            assert (near.age_s, near.stale) == (passed_s, False), "a replica that answers confirms what it knows"
            await made.rounds(2)
        await near.poll()
        assert (near.age_s, near.stale) == (60, False)
        await made.rounds()
        await near.poll()
        assert (near.age_s, near.stale, near.revocations.names(Kind.TXN)) == (65, True, frozenset())
        assert near.problem == "the replica that answers has heard no majority of the replicas for 65 s"
        await far.poll()
        assert far.revocations.names(Kind.TXN) == {"a"}
        made.mend()
        await made.rounds()
        await near.poll()
        assert (near.age_s, near.stale, near.revocations.names(Kind.TXN)) == (0, False, frozenset({"a"}))


@pytest.mark.parametrize(("count", "alone"), [(2, True), (3, False)])
async def test_one_dead_replica_of_three_ages_nobodys_list_and_one_of_two_does(count: int, alone: bool) -> None:
    async with fleet(count) as made:
        await made.rounds()
        made.cut_off(1)
        await made.rounds(14)
        sidecar = made.sidecar(0)
        await sidecar.poll()
        assert (sidecar.age_s, sidecar.stale) == ((70, True) if alone else (0, False))
        assert made.replicas[0].register.peers.counts() == {"heard": count - 2, "silent": 1}


async def test_a_replica_that_is_cut_off_is_not_ready_after_its_bound_and_exchanges_nothing() -> None:
    async with fleet(3) as made:
        await made.rounds()
        cut, other = made.replicas[0], made.replicas[1]
        made.cut_off(0)
        made.clock.passed_s += MAX_SILENCE_S
        assert cut.missing() is None
        made.clock.passed_s += 1
        assert cut.missing() == f"revocations (no majority of the replicas has answered for {MAX_SILENCE_S + 1} s)"
        with pytest.raises(Unavailable):
            await cut.mesh.ask(cut.mesh.exchange_form())
        await other.replicas.ask_all()
        assert other.missing() is None
        made.mend()
        await cut.replicas.ask_all()
        assert cut.missing() is None
        await cut.mesh.ask(cut.mesh.exchange_form())


async def test_a_replica_that_starts_without_a_majority_is_not_ready_before_it_hears_one() -> None:
    async with fleet(3) as made:
        made.cut_off(0)
        await made.rounds()
        assert made.replicas[0].missing() == "revocations (no majority of the replicas has answered since the start)"
        assert made.replicas[1].missing() is None


@pytest.mark.parametrize("giver_stays", [True, False])
async def test_a_replica_whose_disk_is_full_is_not_ready_until_a_write_succeeds(
    giver_stays: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with disk(tmp_path / "small", "16k") as small:
        filler = small / "filler"
        async with fleet(3, small / "orders.json") as made:
            await made.rounds()
            full, giver = made.replicas[:2]
            sidecar = made.sidecar(0)
            await sidecar.poll()
            filler.write_bytes(b"x" * _free(small))
            await giver.register.add(order("a"))
            with caplog.at_level(logging.WARNING, "sidecar.sts"):
                await made.rounds(2)
            told = [one.getMessage() for one in caplog.records]
            assert sorted(set(told)) == ["orders for another replica are not given", NOT_MERGED]
            assert told.count(NOT_MERGED) == 2, "once for each replica that has them"
            assert full.replicas.failures == 3, "the third replica had it in the second round only"
            assert giver.register.unacknowledged() == 1
            why = full.missing()
            assert why == "revocations (the orders cannot be kept: No space left on device)"
            with pytest.raises(Unavailable):
                await full.register.signed_list(full.mesh.policy, full.mesh.ring)
            await sidecar.poll()
            assert sidecar.last_error == "status 503"
            assert (giver.missing(), made.replicas[2].missing()) == (None, None)
            if not giver_stays:
                made.cut_off(1)
                made.cut_off(2)
                await made.rounds()
                assert full.missing() == why, "the disk is still full"
            filler.unlink()
            with caplog.at_level(logging.WARNING, "sidecar.sts"):
                await made.rounds()
            assert full.missing() is None
            await sidecar.poll()
            assert sidecar.revocations.names(Kind.TXN) == ({"a"} if giver_stays else set())
            if giver_stays:
                assert "orders of another replica are merged again" in caplog.messages
                await made.rounds()
                assert giver.register.unacknowledged() == 0
            else:
                assert sidecar.age_s == 15, "nothing is known of its silent peers: the age says so"


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


async def test_an_order_that_one_replica_takes_is_at_all_before_it_is_answered() -> None:
    async with fleet(3) as made:
        await made.rounds()
        taker = made.replicas[0].register
        for value in ("a", "b"):
            await taker.add(order(value))
            assert taker.unacknowledged() == 1
            assert await taker.acknowledge(order(value)) == []
            assert taker.peers.majority_holds(value)
            books = [one.register.book for one in made.replicas]
            assert all(one == books[0] for one in books), "of one number, so that no reader sees it fall"
        await made.rounds()
        assert [one.register.book.seq for one in made.replicas] == [2, 2, 2]
        assert [one.register.unacknowledged() for one in made.replicas] == [0, 0, 0]


@pytest.mark.parametrize(("count", "majority"), [(2, False), (3, True)])
async def test_an_order_that_a_replica_lacks_says_so_and_is_given_again_until_it_has_it(
    count: int, majority: bool
) -> None:
    async with fleet(count) as made:
        await made.rounds()
        taker = made.replicas[0].register
        made.cut_off(1)
        await taker.add(order("a"))
        missing = await taker.acknowledge(order("a"))
        assert missing == [one for one in taker.settings.replicas if one.endswith(f":{made.replicas[0].links[0].port}")]
        assert taker.peers.majority_holds("a") is majority
        await made.rounds(7)
        assert taker.unacknowledged() == 1
        taken = made.replicas[0].links[0].taken
        assert await taker.acknowledge(order("a")) == missing
        assert made.replicas[0].links[0].taken == taken, "one that is silent costs no caller any time"
        made.mend()
        await made.rounds()
        assert "a" in made.replicas[1].register.book.orders
        assert (taker.unacknowledged(), taker.peers.majority_holds("a")) == (0, True)


async def test_a_replica_that_restarts_gives_the_others_what_they_never_got(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    async with fleet(2, file) as made:
        await made.rounds()
        made.cut_off(0)
        await made.replicas[0].register.add(order("a"))
    async with fleet(2, file) as made:
        taker, other = (one.register for one in made.replicas)
        assert taker.peers.without("a"), "nothing is known of a replica that was not heard since the start"
        assert not taker.peers.majority_holds("a")
        made.clock.passed_s += ROUND_S
        await made.replicas[0].replicas.ask_all()
        assert "a" in other.book.orders, "given, before it asked"
        assert taker.peers.majority_holds("a")


async def test_a_flood_of_orders_is_given_in_few_calls() -> None:
    async with fleet(2) as made:
        await made.rounds()
        taker, link = made.replicas[0].register, made.replicas[0].links[0]
        taken = link.taken

        async def take(value: str) -> list[str]:
            await taker.add(order(value))
            return await taker.acknowledge(order(value))

        assert await asyncio.gather(*(take(str(one)) for one in range(100))) == [[]] * 100
        assert len(made.replicas[1].register.book.orders) == 100
        assert link.taken - taken < 50


async def test_a_name_that_fails_again_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet(2) as made:
        one = made.replicas[0]
        urls = one.register.settings.replicas
        told = []
        for known in (True, False, False, True, False):
            names = urls if known else ("https://nowhere.invalid:1",)
            one.register.settings = replace(one.register.settings, replicas=names)
            caplog.clear()
            await made.rounds()
            told.append([record.getMessage().rpartition(" ")[2] for record in caplog.records])
        assert told == [[], ["merged"], [], ["again"], ["merged"]]
        assert one.register.peers.silence_s() == ROUND_S, "the members stay, and their age grows"
