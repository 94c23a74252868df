"""The runbook in practice: each fault is provoked on real sockets, ``sidecar status`` prints the quoted lines, the fix
is applied, and the line is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.errors import ConfigError
from sidecar.exchange.circuit import FIRST_PAUSE_S
from sidecar.identity.tls import server_context
from sidecar.observe.scrape import render
from sidecar.proxy.listening import agent_watch
from sidecar.proxy.listening.status import SettingsState, status_of
from sidecar.reload import Reload
from sidecar.status.client import ask
from sidecar.status.troubles import troubles
from sidecar_dev import answers
from sidecar_dev.answers import State
from sidecar_dev.attestation import Peer
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_service import Call, PeerService
from tests.fakes.conversations import listening
from tests.fakes.lying_sts import Reply, honest
from tests.integration.hops import Hops
from tests.integration.process import process
from tests.integration.world import (
    ACME,
    CRM,
    FRONT,
    PLANNER,
    STS,
    WRITER,
    Agent,
    Sidecar,
    World,
    bearer,
    free_port,
    loaded_from,
    mint,
    until,
)

pytestmark = pytest.mark.integration

RUNBOOK: Final = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
SECTIONS: Final = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def quoted(section: str) -> list[re.Pattern[str]]:
    """Return the lines of problems that a section quotes from ``sidecar status``; ``…`` stands for varying parts."""
    lines = re.findall(r"`((?:WRONG|NOTE): [^`]+)`", SECTIONS[section])
    return [re.compile(".*".join(map(re.escape, line.split("…")))) for line in lines]


def printed(sidecar: Sidecar, settings: SettingsState | None = None) -> dict[str, str]:
    """Return the problems that ``sidecar status`` prints, each line with its fix."""
    document = status_of(sidecar.server, settings or SettingsState(loaded_at=5), since=7, now=int(time.time()))
    found = troubles(json.loads(json.dumps(document)))
    return {f"{one.grade.upper()}: {one.what}: {one.wrong}": one.fix for one in found}


def shown(section: str, told: dict[str, str], about: str) -> list[str]:
    """Return the lines about this that the section quotes and that have a fix."""
    return [
        line
        for line, fix in told.items()
        if fix and about in line and any(pattern.fullmatch(line) for pattern in quoted(section))
    ]


@dataclass
class Fault:
    """A fault on a running mesh: the affected sidecar, the fix, and the state of its settings."""

    sidecar: Sidecar
    fix: Callable[[], Awaitable[Any]]
    settings: Callable[[], SettingsState] | None = None
    stays: bool = False  # counts of the last ten minutes


Provoke = Callable[[Hops], contextlib.AbstractAsyncContextManager[Fault]]


async def call(hops: Hops) -> tuple[int, str | None]:
    """Make a call of the agent's to the next hop, in a new request."""
    async with hops.serving({"jti": f"j{time.monotonic_ns()}"}) as held:
        answer = await hops.call(held.shown)
    return answer.status, answer.reason


@asynccontextmanager
async def spire_agent_down(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    await writer.api.stop()
    yield Fault(writer, writer.api.start)


@asynccontextmanager
async def svid_expired(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    (entry,) = writer.api.registry.entries
    writer.api.registry.replace_entries([replace(entry, ttl_s=3)])
    await until(lambda: writer.server.parts.source.counts.generations > 1)
    await writer.api.stop()
    await until(lambda: writer.server.parts.source.current is None)

    async def fix() -> None:
        writer.api.registry.replace_entries([entry])
        await writer.api.start()

    yield Fault(writer, fix)


@asynccontextmanager
async def svid_ends_soon(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    (entry,) = writer.api.registry.entries
    writer.api.registry.replace_entries([replace(entry, ttl_s=300)])
    await until(lambda: writer.server.parts.source.counts.generations > 1)

    async def fix() -> None:
        writer.api.registry.replace_entries([entry])

    yield Fault(writer, fix)


def stale_caller(hops: Hops) -> ssl.SSLContext:
    """Return TLS as the planner with an SVID from before the CA's rotation, trusting any server."""
    svid = hops.world.acme.issue_x509(PLANNER)
    chain, key = hops.world.folder / "stale.pem", hops.world.folder / "stale.key"
    chain.write_bytes(svid.chain_pem)
    key.write_bytes(svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(chain, key)
    return context


@asynccontextmanager
async def ca_withdrawn(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    stale = stale_caller(hops)
    writer.api.registry.rotate()
    writer.api.registry.drop_old()
    await until(lambda: writer.server.parts.source.counts.generations > 1)
    assert await hops.world.hears_nothing(writer.inbound, stale)

    async def fix() -> None:
        hops.agent.script = None
        answer = await hops.world.call(writer.inbound, stale_caller(hops), headers=bearer(mint()))
        assert answer.status == 200

    yield Fault(writer, fix, stays=True)


@asynccontextmanager
async def token_service_down(hops: Hops) -> AsyncIterator[Fault]:
    port = free_port()
    writer = await hops.start(exchange={"token_endpoint": f"http://127.0.0.1:{port}/token"})
    assert await call(hops) == (503, "sts_unavailable")

    async def fix() -> None:
        async with listening(hops.sts_server.serve, port):
            assert (await call(hops))[0] == 200

    yield Fault(writer, fix)


@asynccontextmanager
async def token_endpoint_down(hops: Hops) -> AsyncIterator[Fault]:
    port = free_port()
    urls = [f"http://127.0.0.1:{port}/token", hops.sts_server.url]
    writer = await hops.start(exchange={"token_endpoint": None, "token_endpoints": urls})
    assert await call(hops) == (200, None)

    async def fix() -> None:
        async with listening(hops.sts_server.serve, port):
            await asyncio.sleep(1.25 * FIRST_PAUSE_S)
            assert (await call(hops))[0] == 200

    yield Fault(writer, fix)


@asynccontextmanager
async def token_service_fails(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    hops.sts.behaviour = lambda _sts, _form: Reply(status=500)
    assert await call(hops) == (503, "sts_unavailable")

    async def fix() -> None:
        hops.sts.behaviour = honest
        assert (await call(hops))[0] == 200

    yield Fault(writer, fix)


@asynccontextmanager
async def token_service_is_another(hops: Hops) -> AsyncIterator[Fault]:
    port, other = free_port(), Agent()
    writer = await hops.start(exchange={"token_endpoint": f"https://127.0.0.1:{port}/token", "peer": str(STS)})
    async with listening(other.serve, port, ssl=server_context(await hops.world.source(CRM))):
        assert await call(hops) == (502, "sts_identity")

    async def fix() -> None:
        async with listening(hops.sts_server.serve, port, ssl=server_context(await hops.world.source(STS))):
            assert (await call(hops))[0] == 200

    yield Fault(writer, fix)


@asynccontextmanager
async def issuer_keys_old(hops: Hops, *, too_old: bool) -> AsyncIterator[Fault]:
    settings = hops.settings()
    settings["issuers"][0] |= {"refresh_s": 0.1, "max_age_s": 1.0 if too_old else 3600.0}
    writer = await hops.world.sidecar(WRITER, settings)
    hops.world.broken_keys = b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"
    await until(lambda: bool(writer.server.missing()) if too_old else "keys of" in str(printed(writer)))
    assert bool(writer.server.missing()) == too_old

    async def fix() -> None:
        hops.world.broken_keys = None
        await until(lambda: not writer.server.missing())

    yield Fault(writer, fix)


@asynccontextmanager
async def agent_dead(hops: Hops) -> AsyncIterator[Fault]:
    port = free_port()
    settings = hops.settings()
    settings["inbound"]["agent"] = f"http://127.0.0.1:{port}"
    writer = await hops.world.sidecar(WRITER, settings)
    watch = writer.server.parts.agent
    assert watch is not None
    async with listening(hops.agent.serve, port):
        await until(lambda: watch.up is True)
    await until(lambda: watch.up is False)
    async with contextlib.AsyncExitStack() as stack:

        async def fix() -> None:
            await stack.enter_async_context(listening(hops.agent.serve, port))
            await until(lambda: watch.up is True)

        yield Fault(writer, fix)


@asynccontextmanager
async def overloaded(hops: Hops) -> AsyncIterator[Fault]:
    settings = hops.settings()
    settings["inbound"]["connections"] = {"max_per_peer": 1}
    writer = hops.writer = await hops.world.sidecar(WRITER, settings)
    async with hops.serving():
        answer = await hops.world.call(writer.inbound, hops.planner, headers=bearer(mint()))
        assert (answer.status, answer.reason) == (503, "overloaded")

    async def fix() -> None:
        async with hops.serving():
            pass

    yield Fault(writer, fix, stays=True)


@asynccontextmanager
async def settings_refused(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    path = writer.settings_path
    good = path.read_text()
    reload = Reload(loaded_from(path), dict(os.environ), writer.server)
    path.write_text(good + "drian_s: 3\n")
    with pytest.raises(ConfigError):
        await reload.reload()

    async def fix() -> None:
        path.write_text(good)
        await reload.reload()

    yield Fault(writer, fix, settings=lambda: reload.state)


@asynccontextmanager
async def deny_file_refused(hops: Hops) -> AsyncIterator[Fault]:
    deny = hops.world.folder / "deny.json"
    good = json.dumps({"deny": [{"actor": str(CRM)}]})
    deny.write_text(good)
    writer = await hops.start(deny_file=str(deny))
    deny.write_text(good[:-1])
    await until(lambda: bool(printed(writer)))

    async def fix() -> None:
        fresh = deny.with_suffix(".new")
        fresh.write_text(good)
        fresh.rename(deny)

    yield Fault(writer, fix)


@asynccontextmanager
async def actor_mismatch(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    stolen = mint({"act": {"sub": str(FRONT)}})
    answer = await hops.world.call(writer.inbound, hops.planner, headers=bearer(stolen))
    assert (answer.status, answer.reason) == (403, "actor_mismatch")

    async def fix() -> None:
        async with hops.serving():
            pass

    yield Fault(writer, fix, stays=True)


@asynccontextmanager
async def name_not_found(hops: Hops) -> AsyncIterator[Fault]:
    settings = hops.settings()
    settings["outbound"]["routes"][0]["upstream"] = "https://crm.invalid:7443"
    writer = hops.writer = await hops.world.sidecar(WRITER, settings)
    assert (await call(hops))[0] in (503, 504)

    async def fix() -> None:
        """Correct the name: another sidecar, with the address."""
        again = hops.settings()
        hops.writer = await hops.world.sidecar(WRITER, again)
        assert (await call(hops))[0] == 200
        fault.sidecar = hops.writer

    fault = Fault(writer, fix)
    yield fault


@asynccontextmanager
async def clock_slow(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    registry = writer.api.registry
    (entry,) = registry.entries
    registry.replace_entries([])
    await until(lambda: writer.server.parts.source.current is None)
    registry._clock = lambda: time.time() + 3600  # its SVIDs begin in an hour, by our clock
    registry.replace_entries([entry])
    await until(lambda: "clock" in (writer.server.parts.source.last_error or ""))

    async def fix() -> None:
        registry._clock = time.time
        registry.rotate()
        await until(lambda: not writer.server.missing())

    yield Fault(writer, fix)


class OtherKeys(PeerService):
    """Delivers the workload's SVID with another key."""

    async def x509_svid(self, call: Call) -> None:
        def with_another_key(registry: Registry, peer: Peer | None) -> State:
            state = answers.x509_svids(registry, peer)
            message = copy.deepcopy(state.message)
            message.svids[0].x509_svid_key = TrustDomainAuthority(ACME).issue_x509(WRITER).key_der
            return replace(state, message=message)

        await self._keep_current(call, with_another_key)


@asynccontextmanager
async def update_discarded(hops: Hops) -> AsyncIterator[Fault]:
    writer = await hops.start()
    api = writer.api
    api.service = lambda peer: OtherKeys(api.registry, peer)  # type: ignore[method-assign]
    await api.stop()
    await api.start()
    await until(lambda: writer.server.parts.source.counts.discarded > 0)
    scraped = render(writer.server.metrics).decode()
    assert 'sidecar_identity_updates_total{result="discarded"} 0.0' not in scraped
    assert 'sidecar_identity_updates_total{result="taken"} 1.0' in scraped

    async def fix() -> None:
        del api.service
        await api.stop()
        await api.start()

    yield Fault(writer, fix)


FAULTS: Final[list[tuple[str, Provoke, str]]] = [
    ("SidecarIdentitySourceLost", spire_agent_down, "identity"),
    ("SidecarIdentityUpdateDiscarded", update_discarded, "the last update cannot be used"),
    ("SidecarSvidEndsSoon", svid_ends_soon, "identity"),
    ("SidecarSvidEndsSoon", svid_expired, "identity"),
    ("SidecarHandshakesRefused", ca_withdrawn, "untrusted_chain"),
    ("SidecarTokenServiceGone", token_service_down, "token service"),
    ("SidecarTokenEndpointDown", token_endpoint_down, "replica"),
    ("SidecarTokenExchangeFails", token_service_down, "the connection failed"),
    ("SidecarTokenExchangeFails", token_service_fails, "it answered with status 500"),
    ("SidecarTokenExchangeFails", token_service_is_another, "sts_identity"),
    ("SidecarOtherEndIsNotWhoItShouldBe", token_service_is_another, f"it is {CRM}, not {STS}"),
    ("SidecarIssuerKeysOld", partial(issuer_keys_old, too_old=False), "keys of"),
    ("SidecarIssuerKeysOld", partial(issuer_keys_old, too_old=True), "none of its tokens"),
    ("SidecarAgentDown", agent_dead, "agent"),
    ("SidecarOverloaded", overloaded, "overloaded"),
    ("SidecarSettingsRefused", settings_refused, "drian_s"),
    ("SidecarDenyFileRefused", deny_file_refused, "stays in force"),
    ("SidecarActorMismatch", actor_mismatch, "actor_mismatch"),
    ("SidecarNamesNotFound", name_not_found, "the name"),
    ("SidecarClockWrong", clock_slow, "clock"),
]


@pytest.mark.parametrize(
    ("section", "provoke", "about"), FAULTS, ids=[f"{name}-{about[:24]}" for name, _, about in FAULTS]
)
async def test_a_fault_is_told_and_fixed_as_the_runbook_says(
    hops: Hops, monkeypatch: pytest.MonkeyPatch, section: str, provoke: Provoke, about: str
) -> None:
    monkeypatch.setattr(agent_watch, "LOOK_S", 0.02)
    async with provoke(hops) as fault:

        def lines() -> list[str]:
            told = printed(fault.sidecar, fault.settings() if fault.settings else None)
            return shown(section, told, about)

        await until(lambda: bool(lines()))
        await fault.fix()
        if not fault.stays:
            await until(lambda: not lines())


async def test_a_worker_that_dies_is_told_as_the_runbook_says(world: World) -> None:
    async with process(world, starts=2, workers=2) as sidecar:
        document = await asyncio.to_thread(ask, sidecar.admin, "/status", member="settings")
        assert troubles(document) == []
        os.kill(document["workers"][0]["pid"], signal.SIGKILL)
        await sidecar.wait_for("started", 3)
        document = await asyncio.to_thread(ask, sidecar.admin, "/status", member="settings")
        (told,) = [one for one in troubles(document) if one.what == "workers"]
        line = f"{told.grade.upper()}: {told.what}: {told.wrong}"
        assert shown("SidecarWorkersDie", {line: told.fix}, "died") == [line]


def test_every_section_that_quotes_a_trouble_is_walked() -> None:
    walked = {section for section, _, _ in FAULTS} | {"SidecarWorkersDie"}
    assert {section for section in SECTIONS if quoted(section)} == walked
    assert len(walked) >= 12


@pytest.mark.parametrize("section", sorted({section for section, _, _ in FAULTS} | {"SidecarWorkersDie"}))
def test_a_walked_section_says_what_to_look_at_the_fix_and_when_it_is_fixed(section: str) -> None:
    text = SECTIONS[section]
    parts = [text.find(word) for word in ("- **Look.**", "- **Fix.**", "- **Fixed**")]
    assert -1 not in parts
    assert parts == sorted(parts)
