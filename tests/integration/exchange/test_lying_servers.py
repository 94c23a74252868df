"""One lying server over every adapter and step: nothing wrong is used, nothing right is refused, no secret leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest

from delegation_core.errors import Reason, SidecarError
from sidecar.exchange.adapters import BUILT_IN
from sidecar.observe.scrape import render
from tests.exchange.world import World, running
from tests.fakes.answer_lies import EVERYWHERE, RIGHT, SILENT, Lie, Said
from tests.fakes.conversations import listening
from tests.fakes.counterparts import CLIENT_SECRET, COUNTERPARTS, Counterpart
from tests.fakes.login_counterparts import LOGIN_COUNTERPARTS, log_in
from tests.fakes.lying_sts import SECRET, LyingSts, Server, encode_reply
from tests.fakes.token_lies import LAST
from tests.fakes.tokens import NOW

pytestmark = pytest.mark.integration

SHOWN: Final = (
    "subject_token", "actor_token", "client_assertion", "assertion", "client_secret", "code_verifier", "device_code",
)  # fmt: skip
ALL: Final = {**COUNTERPARTS, **LOGIN_COUNTERPARTS}


@dataclass
class Trap:
    """Another host: it counts who comes."""

    url: str = ""
    connections: int = 0

    async def serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


class Liar(Server):
    """Answers honestly, but tells ``lie`` at the step of this grant type. It notes every secret that it sees."""

    def __init__(self, sts: LyingSts, trap: Trap) -> None:
        super().__init__(sts)
        self.trap = trap
        self.lie: Lie | None = None
        self.at = ""
        self.stays = False  # after a lie the connection stays open
        self.asked: list[str] = []
        self.secrets: set[str] = {SECRET, CLIENT_SECRET}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            form = dict(parse_qsl(body.decode()))
            self._note(head.decode("latin-1"), form)
            reply = await self.sts.reply(body)
            assert reply.status == 200, f"the counterpart refuses: {reply.body!r}"
            self.secrets.add(json.loads(reply.body).get("access_token", SECRET))
            self.asked.append(form["grant_type"])
            lies = self.lie is not None and form["grant_type"] == self.at
            said = Said(reply, self.sts, form, self.trap.url)
            writer.write(self.lie(said) if lies and self.lie is not None else encode_reply(reply))
            await writer.drain()
            if lies and self.stays:
                await reader.read()  # until the other end gives up
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _note(self, head: str, form: dict[str, str]) -> None:
        self.heads.append(head.encode("latin-1"))
        self.secrets |= {form[name] for name in SHOWN if name in form}
        for line in head.split("\r\n"):
            if line.lower().startswith("authorization: "):
                self.secrets.add(line.rpartition(" ")[2])


@dataclass
class Asking:
    """A sidecar's exchange that asks the liar, and the texts of all errors that it raised."""

    counterpart: Counterpart
    world: World
    liar: Liar
    errors: list[str] = field(default_factory=list)

    async def ask(self, lie: Lie | None = None, at: str = "") -> tuple[Any, ...] | Reason:
        """Ask for a token, as if none had been got before. Return its facts, or the reason of the refusal."""
        world, liar = self.world, self.liar
        world.exchange.invalidate()
        world.monotonic.now += 1000.0  # no answer of another step is kept so long
        liar.lie, liar.at = lie, at
        liar.asked.clear()
        if self.counterpart.adapter in LOGIN_COUNTERPARTS:
            return await self._log_in()
        plan, policy = self.counterpart.asked()
        try:
            issued = await world.exchange.exchange(plan, policy)
        except SidecarError as error:
            self.errors.append("".join(traceback.format_exception(error)))
            assert world.exchange.cached(plan, policy=policy, now=NOW) is None
            return error.reason
        token = issued.permit.token
        return token.issuer, token.subject, token.audience, token.actor_id, tuple(sorted(token.scope))

    async def _log_in(self) -> tuple[Any, ...] | Reason:
        """Log a user in. Return the facts that are known beforehand, or the reason of the refusal."""
        try:
            issued = await log_in(self.world)
        except SidecarError as error:
            self.errors.append("".join(traceback.format_exception(error)))
            assert len(self.world.exchange.tokens) == 0
            return error.reason
        token = issued.permit.token
        return token.issuer, token.audience, token.actor_id, tuple(sorted(token.scope))


@asynccontextmanager
async def asking(counterpart: Counterpart, folder: Path, **settings: Any) -> AsyncIterator[Asking]:
    trap = Trap()
    liar = Liar(counterpart.server(), trap)
    async with listening(trap.serve) as elsewhere, listening(liar.serve) as port:
        trap.url = f"http://127.0.0.1:{elsewhere}/token"
        liar.url = f"http://127.0.0.1:{port}/token"
        more = {**counterpart.settings(liar.url, folder), "retries": 0, "timeout_s": 10.0, **settings}
        async with running(World(server=liar, adapter=counterpart.adapter, **more)) as world:
            yield Asking(counterpart, world, liar)
    assert trap.connections == 0, "another host was asked"


@asynccontextmanager
async def keeping_secrets(of: Asking, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Check that nothing the sidecar writes holds a secret: records, logs, metrics, states, the texts of errors."""
    with caplog.at_level(logging.DEBUG):
        yield
    await of.world.log.close()
    written = {
        "records": of.world.sink.written.decode(),
        "logs": caplog.text,
        "metrics": render(of.world.metrics).decode(),
        "states": repr(of.world.exchange.endpoints) + repr(of.world.exchange.last_refusal),
        "errors": "\n".join(of.errors),
    }
    assert len(of.liar.secrets) > 3
    for where, text in written.items():
        for secret in of.liar.secrets:
            for part in (secret, *secret.split(".")[2:]):  # a token's signature too
                assert len(part) < 8 or part not in text, f"a secret is in the {where}"


def test_every_adapter_has_a_counterpart() -> None:
    assert {one.adapter for one in ALL.values()} == set(BUILT_IN), "add it to tests/fakes/counterparts.py"


def test_there_are_enough_answers() -> None:
    assert len(EVERYWHERE) + len(LAST) + len(RIGHT) >= 150
    assert len(EVERYWHERE) >= 100


STEPS: Final = [
    pytest.param(one, grant, id=f"{name}: step {number}")
    for name, one in ALL.items()
    for number, grant in enumerate(one.grants, start=1)
    if not grant.endswith(":agent_authorization")  # its answer has no token: see tests/exchange/adapters/test_logins.py
]


@pytest.mark.parametrize(("counterpart", "grant"), STEPS)
async def test_no_wrong_answer_is_used_and_none_spoils_the_next(
    counterpart: Counterpart, grant: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = grant == counterpart.grants[-1]
    lies = {**EVERYWHERE, **({f"token: {name}": row for name, row in LAST.items()} if last else {})}
    wrong: list[str] = []
    async with asking(counterpart, tmp_path) as one, keeping_secrets(one, caplog):
        honest = await one.ask()
        assert not isinstance(honest, Reason)
        for name, (lie, reasons) in lies.items():
            told = await one.ask(lie, grant)
            expected = counterpart.grants.index(grant) + 1
            if name.removeprefix("token: ") in counterpart.truths:
                if told != honest:
                    wrong.append(f"{name}: refused, and right here: {told}")
            elif told not in reasons:
                wrong.append(f"{name}: {told}")
            elif len(one.liar.asked) != expected:
                wrong.append(f"{name}: {len(one.liar.asked)} requests")
            if await one.ask() != honest:
                wrong.append(f"{name}: the next one is refused")
    assert wrong == []


@pytest.mark.parametrize(("counterpart", "grant"), STEPS)
async def test_no_right_answer_is_refused(
    counterpart: Counterpart, grant: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong: list[str] = []
    async with asking(counterpart, tmp_path) as one, keeping_secrets(one, caplog):
        honest = await one.ask()
        for name, truth in RIGHT.items():
            told = await one.ask(truth, grant)
            if told != honest:
                wrong.append(f"{name}: {told}")
        assert all(b"\r\ncookie:" not in head.lower() for head in one.liar.heads)
    assert wrong == []


@pytest.mark.parametrize(("counterpart", "grant"), STEPS)
async def test_an_answer_that_never_ends_costs_one_deadline(
    counterpart: Counterpart, grant: str, tmp_path: Path
) -> None:
    async with asking(counterpart, tmp_path, timeout_s=0.1) as one:
        one.liar.stays = True
        told = {name: await one.ask(lie, grant) for name, lie in SILENT.items()}
        # On a busy machine the deadline can end before this step is asked: then there is no token either.
        assert told == dict.fromkeys(SILENT, Reason.STS_TIMEOUT)
