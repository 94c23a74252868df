"""Tokens end with the static credential that obtained them, and with no other change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Plan, plan_own
from delegation_core.policy import Policy
from sidecar.exchange import credential_watch
from sidecar.exchange.adapters.adapter import Answer, ClientAuth, Step
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.credential_watch import CredentialWatch
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.sts_settings import EndpointSettings
from sidecar.exchange.txn_service import TxnTokenService, TxnTokenSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.test_txn_service import _own_token
from tests.exchange.world import World, policy, route, running
from tests.fakes.tokens import ISSUER, NOW, WRITER
from tests.fakes.txn_tokens import SOURCE, TTS, Tts


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread changes it
        await asyncio.sleep(0.001)


OWN_ROUTE = replace(route(), token="self")
BY = replace(policy(), outbound=OutboundRoutes([OWN_ROUTE]), own_may_call=frozenset({OWN_ROUTE.name}))


def secret(file: Path, text: str = "the first secret of the client", audience: str = ISSUER) -> ClientAuthSettings:
    file.write_text(text)
    file.chmod(0o600)
    return ClientAuthSettings(
        method=ClientAuth.SECRET_BASIC,
        audience=audience,
        client_id=str(WRITER),
        credential_file=str(file),
        allow_static=True,
    )


def own(by: Policy = BY) -> Plan:
    return plan_own(OWN_ROUTE, policy=by, now=NOW)


def world(**settings: Any) -> tuple[World, CredentialWatch]:
    made = World(**settings)
    made.sts.behaviour = _own_token
    return made, CredentialWatch(lambda: Exchanges({ISSUER: made.exchange}))


async def test_a_token_of_the_workload_s_own_ends_with_a_changed_credential(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    one, watch = world(client_auth=secret(file))
    async with running(one):
        await watch.look()
        await one.exchange.exchange(own(), BY)
        await watch.look()
        assert one.exchange.cached(own(), policy=BY, now=NOW) is not None
        file.write_text("the second secret of the client")
        await watch.look()
        assert one.exchange.cached(own(), policy=BY, now=NOW) is None
        await one.exchange.exchange(own(), BY)
        await watch.look()
        assert one.exchange.cached(own(), policy=BY, now=NOW) is not None
        assert len(set(one.sts.authorizations)) == 2
        first, second = await one.records()
        assert first["credential"] != second["credential"]


async def test_a_token_that_is_under_way_as_the_credential_changes_is_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    one, watch = world(client_auth=secret(file))
    async with running(one):
        await watch.look()
        one.sts.hold()
        call = asyncio.create_task(one.exchange.exchange(own(), BY))
        async with one.sts.asked:
            await one.sts.asked.wait_for(lambda: len(one.sts.forms) == 1)
        file.write_text("the second secret of the client")
        await watch.look()
        one.sts.release()
        await call
        assert len(one.sts.forms) == 2


async def test_an_answer_that_steps_share_ends_with_the_credential_too(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    one, watch = world(client_auth=secret(file))
    step = Step(form=(("grant_type", "client_credentials"), ("audience", "x"), ("scope", "y")), shared=True)

    def steps() -> Generator[Step, Answer, None]:
        yield step

    async with running(one):
        await watch.look()
        for asked in (1, 1, 2):
            if asked == 2:
                file.write_text("the second secret of the client")
            await watch.look()
            await one.exchange._sts._conversation.run(steps(), WRITER)
            assert len(one.sts.forms) == asked


async def test_a_credential_that_is_removed_ends_its_tokens_too(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    one, watch = world(client_auth=secret(file))
    async with running(one):
        await watch.look()
        await one.exchange.exchange(own(), BY)
        file.unlink()
        await watch.look()
        assert one.exchange.cached(own(), policy=BY, now=NOW) is None


def test_the_files_of_every_endpoint_and_of_the_transaction_token_service_are_watched(tmp_path: Path) -> None:
    at_idp = secret(tmp_path / "idp", audience="https://idp.example")
    endpoint = EndpointSettings(endpoint=Endpoint(url="http://127.0.0.1/idp"), client_auth=at_idp)
    made = World(client_auth=secret(tmp_path / "sts"), adapter="id-jag-04", endpoints={"idp": endpoint}, tts=Tts())
    service = TxnTokenSettings(source=SOURCE, endpoint=None, client_auth=secret(tmp_path / "tts", audience=TTS.issuer))
    made.exchange._txn_service = TxnTokenService(service, made.source, made.keys, made.clock, caller=Tts())
    assert sorted(Path(file).name for file in made.exchange.credential_files) == ["idp", "sts", "tts"]
    assert World().exchange.credential_files == ()


async def test_the_watch_looks_by_itself_and_costs_nothing_without_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_watch, "LOOK_S", 0.001)
    file = tmp_path / "secret"
    one, watch = world(client_auth=secret(file))
    plain, looks = World(), CredentialWatch(lambda: Exchanges({ISSUER: plain.exchange}))
    await looks.look()
    assert looks._seen == {}
    async with running(one), asyncio.timeout(5):
        task = asyncio.create_task(watch.run())
        await until(lambda: bool(watch._seen))
        await one.exchange.exchange(own(), BY)
        file.write_text("the second secret of the client")
        await until(lambda: not len(one.exchange.tokens))
        task.cancel()
