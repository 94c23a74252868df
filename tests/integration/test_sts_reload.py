"""A token service with changing policy and keys: the next request uses the new state, none is lost."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from sidecar.sts.key_files import file_name
from sidecar.sts.keygen import add_key
from tests.integration.entry_world import CUSTOMERS, STAFF, EntryWorld, open_entry_world
from tests.integration.world import PATIENCE_S, Record, bearer, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def entry() -> AsyncIterator[EntryWorld]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_entry_world(Path(folder)) as opened:
            yield opened


async def reload(entry: EntryWorld, event: str = "config.reloaded", *, what: str = "policy") -> Record:
    """Trigger a reload, and wait for its report on ``what``."""
    before = told(entry, event, what)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: len(told(entry, event, what)) > len(before))
    return told(entry, event, what)[-1]


def told(entry: EntryWorld, event: str, what: str) -> list[Record]:
    return [record for record in entry.sts_records(event) if record["detail"].startswith(what)]


def with_rules(entry: EntryWorld, rules: list[Any]) -> dict[str, Any]:
    return {**copy.deepcopy(entry.sts_document), "rules": rules}


async def status(entry: EntryWorld) -> tuple[int, str | None]:
    """Return the status of a call that needs a new exchange."""
    answer = await entry.ask(entry.front, bearer(entry.log_in(jti=f"login-{time.monotonic_ns()}")))
    return answer.status, answer.reason


async def test_a_rule_that_is_taken_away_ends_with_the_next_exchange_and_comes_back(entry: EntryWorld) -> None:
    assert await status(entry) == (200, None)
    lawful = entry.sts_document
    entry.write_sts(with_rules(entry, []))
    await reload(entry)
    assert await status(entry) == (403, "exchange_denied")
    entry.write_sts(lawful)
    await reload(entry)
    assert await status(entry) == (200, None)


async def test_a_changed_file_is_noticed_without_being_told(entry: EntryWorld) -> None:
    entry.write_sts(with_rules(entry, []))
    await until(lambda: bool(told(entry, "config.reloaded", "policy")))
    assert await status(entry) == (403, "exchange_denied")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        pytest.param({"rules": "none"}, "policy: rules: is not a list", id="no policy"),
        pytest.param({"typo": 1}, "policy: typo: is not a setting", id="a word that is none"),
        pytest.param({"listen": "127.0.0.1:1"}, "policy: listen: cannot change", id="another address"),
        pytest.param({"keys": "ephemeral"}, "policy: keys: cannot change", id="other keys"),
        pytest.param({"issuer": "https://sts2.example"}, "policy: issuer: cannot change", id="another name"),
    ],
)
async def test_a_file_that_cannot_be_used_changes_nothing_and_is_told(
    entry: EntryWorld, broken: dict[str, Any], words: str
) -> None:
    lawful = entry.sts_document
    entry.write_sts({**lawful, **broken})
    record = await reload(entry, "config.refused")
    assert record["detail"].startswith(words)
    assert await status(entry) == (200, None)
    entry.write_sts(lawful)
    await reload(entry)


async def test_a_file_that_is_gone_changes_nothing(entry: EntryWorld) -> None:
    (entry.world.folder / "sts.yaml").unlink()
    assert "cannot be read" in (await reload(entry, "config.refused"))["detail"]
    assert await status(entry) == (200, None)


async def test_a_user_issuer_can_be_taken_out_at_once(entry: EntryWorld) -> None:
    assert (await entry.ask(entry.front, bearer(entry.log_in(CUSTOMERS)))).status == 200
    fewer = copy.deepcopy(entry.sts_document)
    fewer["login_issuers"] = fewer["login_issuers"][:1]
    fewer["rules"] = fewer["rules"][:1]
    del fewer["entries"][0]["client_ids"][CUSTOMERS.issuer]
    entry.write_sts(fewer)
    await reload(entry)
    refused = await entry.ask(entry.front, bearer(entry.log_in(CUSTOMERS, jti="login-2")))
    assert (refused.status, refused.reason) == (403, "exchange_denied")
    assert await status(entry) == (200, None)


async def test_requests_under_way_while_the_policy_changes_are_all_answered(entry: EntryWorld) -> None:
    async def ask(number: int) -> int:
        return (await entry.ask(entry.front, bearer(entry.log_in(STAFF, jti=f"j{number}")))).status

    reloading = asyncio.ensure_future(reload(entry))
    statuses = [await asyncio.gather(*(ask(100 * turn + number) for number in range(8))) for turn in range(4)]
    await reloading
    assert {one for turn in statuses for one in turn} == {200}


async def test_a_key_that_is_added_is_announced_and_signs_when_its_time_has_come(entry: EntryWorld) -> None:
    keys = entry.world.folder / "keys"
    assert await status(entry) == (200, None)
    before = kid(entry)
    (first,) = keys.iterdir()
    first.rename(keys / file_name(int(time.time()) - 100_000))  # it has signed for a day
    added = add_key(keys, now=int(time.time()))
    assert added is not None
    await reload(entry, what="keys")
    assert await status(entry) == (200, None)
    assert kid(entry) == before
    added.rename(keys / file_name(int(time.time()) - 1))  # as if its time had come
    await reload(entry, what="keys")
    async with asyncio.timeout(PATIENCE_S):
        while await status(entry) == (200, None) and kid(entry) == before:
            pass
    assert kid(entry) != before


async def test_a_bad_key_leaves_the_good_ones_in_force(entry: EntryWorld) -> None:
    (entry.world.folder / "keys" / "active.pem").write_text("secret")
    record = await reload(entry, "config.refused", what="keys")
    assert "active.pem" in record["detail"]
    assert "secret" not in record["detail"]
    assert await status(entry) == (200, None)


def kid(entry: EntryWorld) -> str | None:
    return parse_bearer(entry.world.agent.headers()["delegation-token"]).kid
