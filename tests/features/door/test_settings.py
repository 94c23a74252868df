"""An entry's door: the page's example, and each agreement with one fact changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.document import parse_document
from sidecar.config.sts_file import load_sts
from tests.config.documents import ABSENT, changed, example, problems, written

PAGE = Path(__file__).parents[3] / "docs" / "door.md"
FOUND: list[Any] = [
    parse_document(block, name="block") for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
]
ENTRY: dict[str, Any] = FOUND[0]
STS: dict[str, Any] = FOUND[1]
ISSUER = "https://login.acme.example"
RESOURCE = "https://tools.acme.example"


def door(name: str, value: object) -> list[tuple[str, object]]:
    return [(f"entry.door.{name}", value)]


def test_the_pages_example_opens_what_it_says(tmp_path: Path) -> None:
    settings = load_sidecar(written(tmp_path, ENTRY), {})
    assert settings.door is not None
    assert (settings.door.listen.port, settings.door.tls.key.name) == (8443, "tls.key")
    assert str(settings.door.listen) in map(str, settings.listens)
    assert settings.entry is not None
    made = settings.entry.door
    assert made is not None
    assert (made.resource.url, made.resource.authorization_servers) == (RESOURCE, (ISSUER,))
    assert made.routes == frozenset({"crm-tools"})
    assert made.origins == frozenset({"https://inspector.acme.example"})
    assert made.issuers[ISSUER].audiences == {RESOURCE, f"{RESOURCE}/"}
    assert made.words_for(frozenset({"crm.read"})) == {"customers"}


def test_issuers_at_a_door_are_asked_for_unknown_keys_more_often(tmp_path: Path) -> None:
    def cooldowns(*changes: tuple[str, object]) -> dict[str, float]:
        keys = load_sidecar(written(tmp_path, changed(ENTRY, *changes)), {}).keys
        return {one.issuer: one.cooldown_s for one in keys}

    assert cooldowns() == {"https://sts.acme.example": 30.0, ISSUER: 5.0}
    assert cooldowns(("entry.door", ABSENT))[ISSUER] == 30.0
    assert cooldowns(("entry.issuers.0.cooldown_s", 60))[ISSUER] == 60.0


def test_no_tunnel_reaches_the_door(tmp_path: Path) -> None:
    tunnel = {"name": "loop", "match": {"host": "127.0.0.1:8443"}, "token": "connect"}
    routes = [*ENTRY["outbound"]["routes"], tunnel]
    told = check(written(tmp_path, changed(ENTRY, ("outbound.routes", routes))), {}).problems
    at = f"outbound.routes[{len(routes) - 1}].match.host"
    assert [one.wrong for one in told if one.field == at] == ["is a listener of this sidecar"]


def test_the_pages_token_service_takes_tokens_for_the_door(tmp_path: Path) -> None:
    document = example("sts")
    (theirs,) = STS["entries"]
    entries = [{**one, "door": theirs["door"]} for one in document["entries"]]
    settings = load_sts(written(tmp_path, changed(document, ("entries", entries))), {})
    assert {entry.door for entry in settings.policy.entries.values()} == {RESOURCE}


@pytest.mark.parametrize("url", ["http://tools.acme.example", f"{RESOURCE}/crm/", "https://front-app"])
def test_the_token_service_reports_what_is_no_door(tmp_path: Path, url: str) -> None:
    document = example("sts")
    entry = {**document["entries"][0], "door": url, "client_ids": {ISSUER: "https://front-app"}}
    found = problems(tmp_path, changed(document, ("entries", [entry])), sts=True)
    assert any(problem.field.endswith(".door") for problem in found), found


def mapped(**route: Any) -> list[tuple[str, object]]:
    return [(f"outbound.routes.0.{name}", value) for name, value in route.items()]


CASES: list[tuple[list[tuple[str, object]], str]] = [
    (door("resource", "http://tools.acme.example"), "entry.door.resource"),
    (door("resource", "https://Tools.acme.example"), "entry.door.resource"),
    (door("resource", "https://tools.acme.example:443"), "entry.door.resource"),
    (door("resource", "https://tools.acme.example/mcp?a=b"), "entry.door.resource"),
    (door("resource", "https://tools.acme.example/crm/"), "entry.door.resource"),
    (door("resource", "https://me@tools.acme.example"), "entry.door.resource"),
    (door("resource", "https://tools.acme.example/.sidecar/x"), "entry.door.resource"),
    (door("resource", "https://tools.acme.example/other"), "entry.door.routes[0]"),
    ([("entry.issuers.0.client_id", RESOURCE)], "entry.door.resource"),
    (door("routes", []), "entry.door.routes"),
    (door("routes", ["nothing"]), "entry.door.routes[0]"),
    ([("entry.may_call", [])], "entry.door.routes[0]"),
    (mapped(protocol="http"), "entry.door.routes[0]"),
    (mapped(match={"host": "crm.mesh"}), "entry.door.routes[0]"),
    (mapped(observe_until="2099-01-01"), "entry.door.routes[0]"),
    (door("authorization_servers", ["https://else.example"]), "entry.door.authorization_servers[0]"),
    ([("entry.issuers.0.profile", "oidc-id-token")], "entry.door.authorization_servers"),
    (
        [("entry.issuers.0.profile", "oidc-id-token"), *door("authorization_servers", [ISSUER])],
        "entry.door.authorization_servers[0]",
    ),
    (door("origins", ["*"]), "entry.door.origins[0]"),
    (door("origins", ["null"]), "entry.door.origins[0]"),
    (door("origins", ["https://inspector.acme.example/"]), "entry.door.origins[0]"),
    (door("origins", ["https://inspector.acme.example:443"]), "entry.door.origins[0]"),
    (door("key", "/etc/sidecar/door/tls.crt"), "entry.door.key"),
    (door("key", ABSENT), "entry.door.key"),
    (door("listen", "127.0.0.1:7080"), "outbound.listen"),
]


@pytest.mark.parametrize(("changes", "field"), CASES)
def test_what_does_not_fit_is_reported_with_its_fix(
    tmp_path: Path, changes: list[tuple[str, object]], field: str
) -> None:
    found = problems(tmp_path, changed(ENTRY, *changes))
    assert field in [problem.field for problem in found], found
    assert all(problem.wrong and problem.fix for problem in found)


@pytest.mark.parametrize(
    "changes",
    [
        door("resource", f"{RESOURCE}/crm"),
        door("resource", f"{RESOURCE}/crm/mcp"),
        door("resource", f"{RESOURCE}:8443"),
        door("origins", ["http://localhost:6274"]),
        door("authorization_servers", [ISSUER]),
        door("connections", {"max_connections": 10}),
    ],
)
def test_what_fits_is_accepted(tmp_path: Path, changes: list[tuple[str, object]]) -> None:
    assert problems(tmp_path, changed(ENTRY, *changes)) == []


@pytest.mark.parametrize(("doors", "fine"), [([RESOURCE], True), ([], False), ([f"{RESOURCE}/crm"], False)])
def test_a_platform_file_lists_the_doors(tmp_path: Path, doors: list[str], *, fine: bool) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    platform = written(folder, {**example("platform"), "doors": doors})
    found = check(written(tmp_path, ENTRY), {}, platform=platform).problems
    assert ("entry.door.resource" not in [problem.field for problem in found]) is fine
