"""The deny file is the brake that waits for nobody: no reload, no interpreter, no other worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from delegation_core.errors import ConfigError
from sidecar.cli import main
from sidecar.config.loader import SettingsFiles
from sidecar.file_watch import FileWatcher
from sidecar.proxy.listening.status import SettingsState, status_of
from sidecar.reload import Reload
from tests.integration.hops import Hops
from tests.integration.test_authority import begin, both_go_on
from tests.integration.test_workers import WORKERS, metric, status, workers
from tests.integration.underway import Underway, open_underway
from tests.integration.world import PLANNER, WRITER, World, bearer, calling, loaded_from, mint, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

HELPER = "spiffe://partner.example/agent/helper"


class DenyList:
    """The file, as an operator writes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "deny.json"
        self.write()

    def write(self, *rows: dict[str, str]) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps({"deny": rows}))
        beside.rename(self.path)

    def apply(self, document: dict[str, Any]) -> None:
        document["deny_file"] = str(self.path)


@pytest.fixture
def deny(tmp_path: Path) -> DenyList:
    return DenyList(tmp_path)


@asynccontextmanager
async def flying(deny: DenyList) -> AsyncIterator[Underway]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_underway(Path(folder), deny.apply) as underway:
            yield underway


async def in_force(underway: Underway, number: int) -> None:
    """Wait until the sidecar has told of so many lists."""
    await until(lambda: len(list(underway.sidecar.records("deny.changed"))) >= number)


# (the twin, the cause, the group concerned): one of each kind of row
CAUSES: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "its subject": ({"subject": "mallory"}, {"subject": "alice"}, "helper"),
    "its actor": ({"actor": "spiffe://acme.example/agent/other"}, {"actor": HELPER}, "helper"),
    "its token": ({"jti": "another"}, {"jti": "of-planner"}, "planner"),
}


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize(("twin", "cause", "group"), CAUSES.values(), ids=CAUSES.keys())
async def test_all_in_flight_ends_with_what_is_denied_and_nothing_else_does(
    deny: DenyList, direction: str, twin: dict[str, str], cause: dict[str, str], group: str
) -> None:
    async with flying(deny) as underway:
        await begin(underway, direction)
        deny.write(twin)
        await in_force(underway, 2)
        await both_go_on(underway, direction)
        deny.write(twin, cause)
        await underway.ended(direction, group, "policy_denied")
        await underway.look()
        await underway.go_on(direction, "planner" if group == "helper" else "helper")


async def test_a_token_that_was_remembered_is_refused_and_served_again_without_its_row(
    world: World, deny: DenyList
) -> None:
    settings = world.settings()
    deny.apply(settings)
    sidecar = await world.sidecar(WRITER, settings)
    planner, token = calling(await world.source(PLANNER), WRITER), mint({"txn": "t-bad"})

    async def reason() -> str | None:
        return (await world.call(sidecar.inbound, planner, headers=bearer(token))).reason

    assert await reason() is None
    for rows, expected in (([{"txn": "t-other"}], None), ([{"txn": "t-bad"}], "policy_denied"), ([], None)):
        known = len(list(sidecar.records("deny.changed")))
        deny.write(*rows)
        await until(lambda n=known: len(list(sidecar.records("deny.changed"))) > n)  # type: ignore[misc]
        assert await reason() == expected


async def test_rows_of_the_settings_and_of_the_file_count_together(world: World, deny: DenyList) -> None:
    deny.write({"jti": "by-file"})
    settings = world.settings(deny=[{"jti": "by-settings"}])
    deny.apply(settings)
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    for jti, expected in (("by-file", "policy_denied"), ("by-settings", "policy_denied"), ("neither", None)):
        answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": jti})))
        assert (jti, answer.reason) == (jti, expected)


async def test_a_broken_file_keeps_the_list_and_the_record_says_so(world: World, deny: DenyList) -> None:
    deny.write({"jti": "bad"})
    settings = world.settings()
    deny.apply(settings)
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    deny.path.write_text("deny:\n- jti: other\n")
    await until(lambda: bool(list(sidecar.records("deny.refused"))))
    (record,) = sidecar.records("deny.refused")
    assert "the document is not an object; in force: rows=1 sha256=" in record["detail"]
    for jti, expected in (("bad", "policy_denied"), ("other", None)):
        answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": jti})))
        assert answer.reason == expected


async def test_nothing_is_served_before_the_first_list(world: World, deny: DenyList) -> None:
    deny.path.unlink()
    settings = world.settings()
    deny.apply(settings)
    sidecar = await world.sidecar(WRITER, settings, wait=False)
    waiting = ["deny_file: it cannot be read: No such file or directory"]
    await until(lambda: sidecar.server.missing() == waiting)
    assert not sidecar.server.ready.is_set()
    deny.write({"jti": "bad"})
    await until(sidecar.server.ready.is_set)
    planner = calling(await world.source(PLANNER), WRITER)
    for jti, expected in (("bad", "policy_denied"), ("other", None)):
        answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": jti})))
        assert answer.reason == expected


async def test_the_status_names_rows_that_can_match_nothing_while_the_others_are_in_force(
    world: World, deny: DenyList
) -> None:
    settings = world.settings()
    deny.apply(settings)
    deny.write({"jti": "bad"}, {"actor": "spiffe://acme.exampl/agent/planner"}, {"actor": str(PLANNER)[:-1]})
    sidecar = await world.sidecar(WRITER, settings)
    document = status_of(sidecar.server, SettingsState(loaded_at=0), since=0, now=0)
    assert [(one["row"], one["fix"]) for one in document["deny_unmatched"]] == [
        ("actor spiffe://acme.exampl/agent/planner", "did you mean acme.example?")
    ]
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": "bad"})))
    assert answer.reason == "policy_denied"


async def test_it_does_not_wait_for_a_reload_that_takes_forever_and_outlives_one(world: World, deny: DenyList) -> None:
    settings = world.settings()
    deny.apply(settings)
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    begun = asyncio.Event()

    async def forever(_files: SettingsFiles, _environ: Mapping[str, str]) -> NoReturn:
        begun.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    reload = Reload(loaded_from(sidecar.settings_path), {}, sidecar.server, forever)
    watcher = FileWatcher(reload.all_watched(), sidecar.server.parts.log)
    running = asyncio.ensure_future(watcher.run())
    watcher.wake()
    await begun.wait()
    deny.write({"jti": "bad"})
    await until(lambda: len(list(sidecar.records("deny.changed"))) == 2)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": "bad"})))
    assert answer.reason == "policy_denied"
    running.cancel()

    async def here(files: SettingsFiles, environ: Mapping[str, str]) -> Any:
        return loaded_from(files.path)

    await Reload(loaded_from(sidecar.settings_path), {}, sidecar.server, here).reload()
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": "bad"})))
    assert answer.reason == "policy_denied"


async def test_a_reload_may_name_another_file_which_is_in_force_first_or_refuses_the_reload(
    world: World, deny: DenyList, tmp_path: Path
) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    document = yaml.safe_load(sidecar.settings_path.read_text())
    before = loaded_from(sidecar.settings_path)

    async def here(files: SettingsFiles, _environ: Mapping[str, str]) -> Any:
        return loaded_from(files.path)

    reload = Reload(before, {}, sidecar.server, here)

    async def answered(jti: str) -> str | None:
        return (await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": jti})))).reason

    deny.write({"jti": "bad"})
    for path, refused, expected in (
        (deny.path, False, "policy_denied"),
        (tmp_path / "absent.json", True, "policy_denied"),
        (None, False, None),
    ):
        changed = document if path is None else {**document, "deny_file": str(path)}
        sidecar.settings_path.write_text(yaml.safe_dump(changed))
        with pytest.raises(ConfigError, match="deny_file") if refused else contextlib.nullcontext() as error:
            await reload.reload()
        if error is not None:
            assert error.value.transient, "nothing tries the settings again once the list is there"
        assert (path, await answered("bad")) == (path, expected)
        assert await answered("good") is None


@pytest.mark.parametrize("named", ["another", None])
async def test_settings_that_are_refused_take_no_row_away(
    world: World, deny: DenyList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    monkeypatch.setattr("sidecar.reload._NEW_KEYS_S", 0.1)
    deny.write({"jti": "bad"})
    settings = world.settings()
    deny.apply(settings)
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    before = loaded_from(sidecar.settings_path)
    document = yaml.safe_load(sidecar.settings_path.read_text())
    (other := tmp_path / "another.json").write_text('{"deny": []}')
    changed = {**document, "deny_file": str(other)} if named else {**document}
    if not named:
        del changed["deny_file"]

    async def here(files: SettingsFiles, _environ: Mapping[str, str]) -> Any:
        return loaded_from(files.path)

    async def answered() -> str | None:
        return (await world.call(sidecar.inbound, planner, headers=bearer(mint({"jti": "bad"})))).reason

    reload = Reload(before, {}, sidecar.server, here)
    (issuer,) = changed["issuers"]
    gone = {**changed, "issuers": [{**issuer, "jwks": "http://127.0.0.1:9/jwks"}]}
    for wanted, refused, expected in ((gone, True, "policy_denied"), (changed, False, None)):
        sidecar.settings_path.write_text(yaml.safe_dump(wanted))
        with pytest.raises(ConfigError, match="keys of") if refused else contextlib.nullcontext():
            await reload.reload()
        assert (refused, await answered()) == (refused, expected)
        followed = sidecar.server.parts.deny_file.path
        assert followed == (deny.path if refused else (other if named else None))


async def test_every_worker_follows_it_and_the_command_waits_for_all(
    hops: Hops, deny: DenyList, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = hops.settings()
    deny.apply(settings)
    async with workers(hops.world, settings) as sidecar:

        async def wait(*more: str) -> int:
            words = ["status", "--socket", str(sidecar.admin), "--wait-deny", str(deny.path), *more]
            return await asyncio.to_thread(main, words)

        assert await wait() == 0
        deny.write({"jti": "bad"}, {"txn": "worse"})
        assert await wait("--wait", "30") == 0
        assert "in force: 2 rows, sha256 " in capsys.readouterr().out
        assert len({one["deny_sha256"] for one in (await status(sidecar))["workers"]}) == 1
        assert await metric(sidecar, "sidecar_deny_file_rows{") == 2
        for _ in range(4 * WORKERS):
            answer = await hops.world.call(sidecar.port, hops.planner, headers=bearer(mint({"jti": "bad"})))
            assert answer.reason == "policy_denied"
        assert len({one["run"] for one in sidecar.records() if one["event"] == "deny.changed"}) == WORKERS
        deny.path.write_text("broken")
        assert await wait("--wait", "1.5") == 1
        assert await metric(sidecar, "sidecar_deny_file_refused ") == 1
        said = capsys.readouterr().out
        assert f"in 0 of {WORKERS} processes" in said
        assert "the document is not an object" in said
