from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.check import check
from tests.config.documents import EXAMPLES, changed, example, written

AGENT = example("agent")
OVER = "2026-09-01"


@pytest.fixture(autouse=True)
def in_october(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be the 20th of October 2026 in UTC, before each day that the files here name, except ``OVER``."""
    monkeypatch.setattr("sidecar.check.time", SimpleNamespace(time=lambda: 1_792_454_400.0))


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        pytest.param("scopes", "every delegated token for this workload is enough", id="scopes"),
        pytest.param("peers", "refuses every peer", id="peers"),
    ],
)
def test_an_empty_list_at_an_inbound_route_is_noted_with_its_effect(tmp_path: Path, key: str, effect: str) -> None:
    path = written(tmp_path, changed(AGENT, (f"inbound.routes.0.{key}", [])))
    (note,) = check(path, {}).notes
    assert note.field == f"inbound.routes[0].{key}"
    assert effect in note.wrong
    assert note.fix


def test_a_route_that_lists_scopes_and_peers_has_no_note(tmp_path: Path) -> None:
    assert check(written(tmp_path, AGENT), {}).notes == []


def test_empty_lists_of_routes_that_observe_are_noted_with_what_comes_later(tmp_path: Path) -> None:
    observing = changed(
        AGENT,
        ("inbound.routes.0.peers", []),
        ("inbound.routes.0.observe_until", "2026-11-01"),
        ("outbound.routes.0.scopes", []),
        ("outbound.routes.0.observe_until", "2026-11-01"),
    )
    peers, scopes = check(written(tmp_path, observing), {}).notes
    assert peers.wrong == "is empty: route search refuses every peer once it observes no longer"
    assert scopes.wrong == "route crm lists no scopes: it refuses every call with a handle, also while it observes"


def test_a_row_of_the_deny_list_that_can_match_nothing_is_noted_in_the_settings_and_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "deny.json"
    file.write_text('{"deny": [{"actor": "spiffe://acme.exampl/agent/planner"}]}')
    lawful = changed(AGENT, ("deny", [{"actor": "spiffe://acme.example/agent/planner"}]))
    assert check(written(tmp_path, lawful), {}).notes == []
    (note,) = check(written(tmp_path, changed(lawful, ("deny_file", str(file)))), {}).notes
    assert (note.field, note.fix) == ("deny: actor spiffe://acme.exampl/agent/planner", "did you mean acme.example?")
    misspelled = changed(AGENT, ("deny", [{"subject": "alice", "issuer": "https://sts.acme.example/"}]))
    (note,) = check(written(tmp_path, misspelled), {}).notes
    assert (note.field, note.fix) == ("deny: subject alice", "write https://sts.acme.example")


def test_a_key_that_the_agent_need_not_check_any_more_is_noted(tmp_path: Path) -> None:
    section = {"file": "/var/run/keys/agent", "field": "x-api-key"}
    enforcing = changed(AGENT, ("inbound.agent_key", section))
    (note,) = check(written(tmp_path, enforcing), {}).notes
    assert (note.field, note.fix) == ("inbound.agent_key", "let the agent check none, then remove it")
    observing = changed(enforcing, ("inbound.routes.0.observe_until", "2026-11-01"))
    assert check(written(tmp_path, observing), {}).notes == []


def test_notes_come_with_a_usable_file_only(tmp_path: Path) -> None:
    narrow = changed(AGENT, ("inbound.routes.0.scopes", []))
    problems, notes = check(written(tmp_path, narrow), {})
    assert (problems, len(notes)) == ([], 1)
    problems, notes = check(written(tmp_path, changed(narrow, ("nonsense", 1))), {})
    assert (len(problems), notes) == (1, [])


def test_a_static_key_to_a_provider_that_takes_our_identity_is_noted(tmp_path: Path) -> None:
    outside, platform = example("outside"), EXAMPLES / "platform.yaml"
    (note,) = check(written(tmp_path, outside), {}, platform=platform).notes
    assert "route model sends a static key to api.openai.com" in note.wrong
    assert "token: federate" in note.fix
    folder = tmp_path / "platform"
    folder.mkdir()
    elsewhere = written(folder, changed(example("platform"), ("inject", ["models.example"])))
    unknown = changed(outside, ("outbound.routes.0.upstream", "https://models.example"))
    assert check(written(tmp_path, unknown), {}, platform=elsewhere) == ([], [])


@pytest.mark.parametrize(
    ("change", "field", "effect"),
    [
        (("inbound.routes.0.observe_until", OVER), "inbound.routes[0].observe_until", "route search enforces"),
        (("outbound.routes.0.observe_until", OVER), "outbound.routes", "route crm is over: it enforces"),
    ],
)
def test_a_day_that_is_over_is_noted(tmp_path: Path, change: tuple[str, Any], field: str, effect: str) -> None:
    (note,) = check(written(tmp_path, changed(AGENT, change)), {}).notes
    assert (note.field, note.fix) == (field, "remove it, or set a later day")
    assert effect in note.wrong
    assert check(written(tmp_path, changed(AGENT, (change[0], "2026-11-01"))), {}).notes == []


def test_the_day_of_a_key_and_of_the_port_without_tls_is_noted_when_it_is_over(tmp_path: Path) -> None:
    outside, platform = example("outside"), EXAMPLES / "platform.yaml"
    expired = changed(outside, ("outbound.routes.0.inject.until", OVER))
    wrong = [note.wrong for note in check(written(tmp_path, expired), {}, platform=platform).notes]
    assert "the day of route model is over: it refuses every call" in wrong
    folder = tmp_path / "platform"
    folder.mkdir()
    lax = written(folder, changed(example("platform"), ("plain", True), ("observe_until", True)))
    plain = changed(
        AGENT,
        ("inbound.routes.0.observe_until", "2026-11-01"),
        ("inbound.plain", {"listen": "127.0.0.1:7444", "until": OVER}),
    )
    assert [note.field for note in check(written(tmp_path, plain), {}, platform=lax).notes] == ["inbound.plain.until"]
