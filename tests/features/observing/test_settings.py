"""Days until which routes observe: how far ahead they may be, and who may set them."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError, Denied, Problem, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.document import parse_document
from sidecar.config.field_types import start_of
from sidecar.config.settings import SidecarSettings
from sidecar.config.sidecar_file import load_sidecar
from tests.config.documents import ABSENT, EXAMPLES, changed, example, written

AGENT = example("agent")
EXAMPLE = example("observe")
PLATFORM = example("platform")
NOW = datetime(2026, 11, 28, 23, 59, 59, tzinfo=UTC)
FIELD = "inbound.routes[0].observe_until"


def loaded(folder: Path, day: str) -> int:
    """Return until when the first inbound route observes."""
    document = changed(AGENT, ("inbound.routes.0.observe_until", day))
    settings = load_sidecar(written(folder, document), {}, clock=NOW.timestamp)
    return settings.inbound_routes.routes[0].observe_until


@pytest.mark.parametrize("days", [-400, 0, 1, 30])
def test_a_route_observes_until_the_beginning_of_its_day_in_utc(tmp_path: Path, days: int) -> None:
    day = NOW.date() + timedelta(days=days)
    until = datetime.fromtimestamp(loaded(tmp_path, day.isoformat()), UTC)
    assert (until.date(), until.hour, until.minute, until.second) == (day, 0, 0, 0)


def test_a_day_further_ahead_is_refused_with_the_last_one_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, "2026-12-29")
    assert refused.value.problems == (
        Problem(FIELD, "is more than 30 days ahead", "write 2026-12-28 or an earlier day"),
    )


def test_an_agent_that_serves_one_subject_at_a_time_observes_nothing(tmp_path: Path) -> None:
    document = changed(AGENT, ("inbound.routes.0.observe_until", "2026-12-01"), ("inbound.subjects_at_once", 1))
    with pytest.raises(ConfigError) as refused:
        load_sidecar(written(tmp_path, document), {}, clock=NOW.timestamp)
    assert [problem.field for problem in refused.value.problems] == [FIELD]


@pytest.mark.parametrize("value", [True, "soon", "2026-12", "2026-13-01", "01.12.2026"])
def test_what_is_no_day_is_refused(tmp_path: Path, value: object) -> None:
    document = changed(AGENT, ("inbound.routes.0.observe_until", value))
    with pytest.raises(ConfigError, match="observe_until"):
        load_sidecar(written(tmp_path, document), {}, clock=NOW.timestamp)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_platform_file_decides_if_a_route_may_observe(tmp_path: Path, allowed: bool) -> None:
    platform = tmp_path / "platform"
    platform.mkdir()
    file = written(tmp_path, changed(AGENT, ("inbound.routes.0.observe_until", "2026-12-01")))
    ceiling = written(platform, changed(PLATFORM, ("observe_until", allowed)))
    told: tuple[Problem, ...] = ()
    try:
        load_sidecar(file, {}, ceiling, clock=NOW.timestamp)
    except ConfigError as error:
        told = error.problems
    refused = Problem(FIELD, "is forbidden by the platform", "remove it, or have the platform allow it")
    assert (refused in told) is not allowed


PLAIN = {"listen": "127.0.0.1:7444", "until": "2026-12-20"}


def with_plain(folder: Path, *changes: tuple[str, object], allowed: object = True) -> tuple[Problem, ...]:
    """Return the problems of settings with a port without TLS."""
    (folder / "platform").mkdir()
    ceiling = written(folder / "platform", changed(PLATFORM, ("observe_until", True), ("plain", allowed)))
    own = ("inbound.routes.0.observe_until", "2026-12-28"), ("inbound.plain", dict(PLAIN))
    document = changed(AGENT, *own, *changes)
    try:
        settings = load_sidecar(written(folder, document), {}, ceiling, clock=NOW.timestamp)
    except ConfigError as error:
        return error.problems
    assert settings.inbound is not None
    assert settings.inbound.plain is not None
    assert settings.inbound.plain.until == start_of("2026-12-20")
    assert settings.inbound.plain.listen in settings.listens
    return ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("inbound.plain.until", "2026-12-29"), "inbound.plain.until"),
        (("inbound.plain.listen", AGENT["inbound"].get("listen", "0.0.0.0:7443")), "inbound.listen"),
        (("inbound.plain.listen", AGENT["inbound"]["agent"].removeprefix("http://")), "inbound.agent"),
        (("inbound.routes.0.observe_until", None), "inbound.plain"),
    ],
    ids=["too-far", "the-mtls-port", "the-agent's-port", "nothing-observes"],
)
def test_a_port_without_tls_is_for_routes_that_observe(tmp_path: Path, change: tuple[str, object], field: str) -> None:
    lawful, other = tmp_path / "lawful", tmp_path / "other"
    lawful.mkdir()
    other.mkdir()
    of_plain = [problem.field for problem in with_plain(lawful)]
    assert field not in of_plain
    assert field in [problem.field for problem in with_plain(other, change)]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_port_without_tls_needs_the_platform_s_word(tmp_path: Path, allowed: bool) -> None:
    refused = Problem("inbound.plain", "is forbidden by the platform", "remove it, or have the platform allow it")
    assert (refused in with_plain(tmp_path, allowed=allowed)) is not allowed


def test_a_port_without_tls_may_be_removed_from_a_running_sidecar_and_neither_moved_nor_added(tmp_path: Path) -> None:
    ceiling = written(tmp_path, changed(PLATFORM, ("observe_until", True), ("plain", True)))

    def load(*changes: tuple[str, object]) -> SidecarSettings:
        document = changed(AGENT, ("inbound.routes.0.observe_until", "2026-12-28"), *changes)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return load_sidecar(written(folder, document), {}, ceiling, clock=NOW.timestamp)

    running, without = load(("inbound.plain", PLAIN)), load()
    enforcing = load(("inbound.routes.0.observe_until", ABSENT))
    assert running.needs_restart(without) == running.needs_restart(enforcing) == []
    moved = load(("inbound.plain", PLAIN | {"until": "2026-12-19"}))
    for before, after in ((running, moved), (without, running), (running, load(("inbound.listen", "0.0.0.0:7999")))):
        assert [problem.field for problem in before.needs_restart(after)] == ["inbound"]


def outbound(day: str, **changes: object) -> dict[str, object]:
    return changed(AGENT, ("outbound.routes.0.observe_until", day), *changes.items())


def test_an_outbound_route_observes_towards_its_peer(tmp_path: Path) -> None:
    settings = load_sidecar(written(tmp_path, outbound("2026-12-28")), {}, clock=NOW.timestamp)
    route = settings.outbound_routes.routes[0]
    assert route.observe_until == start_of("2026-12-28")
    assert settings.observe_until == {("outbound", route.name): route.observe_until}


def test_an_outbound_day_is_limited_too_and_needs_a_peer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than 30 days ahead"):
        load_sidecar(written(tmp_path, outbound("2026-12-29")), {}, clock=NOW.timestamp)
    anybody = changed(
        AGENT,
        ("outbound.routes.0.observe_until", "2026-12-01"),
        ("outbound.routes.0.upstream", "http://127.0.0.1:9000"),
        ("outbound.routes.0.peer", None),
    )
    with pytest.raises(ConfigError, match="only a route with a peer observes"):
        load_sidecar(written(tmp_path, anybody), {}, clock=NOW.timestamp)


def test_a_route_that_observes_needs_no_scopes_yet(tmp_path: Path) -> None:
    observing = outbound("2026-12-28", **{"outbound.routes.0.scopes": []})
    assert not load_sidecar(written(tmp_path, observing), {}, clock=NOW.timestamp).outbound_routes.routes[0].scopes
    enforcing = changed(observing, ("outbound.routes.0.observe_until", ABSENT))
    with pytest.raises(ConfigError, match=r"outbound\.routes\[0\]\.scopes: is empty, so every call is refused"):
        load_sidecar(written(tmp_path, enforcing), {}, clock=NOW.timestamp)


def test_of_routes_outside_the_mesh_only_passthrough_observes(tmp_path: Path) -> None:
    document = example("outside")
    kinds = [route.get("token") for route in document["outbound"]["routes"]]
    changes = [(f"outbound.routes.{number}.observe_until", "2026-12-01") for number in range(len(kinds))]
    with pytest.raises(ConfigError) as refused:
        load_sidecar(written(tmp_path, changed(document, *changes)), {}, clock=NOW.timestamp)
    unknown = {problem.field for problem in refused.value.problems if problem.field.endswith("observe_until")}
    assert unknown == {
        f"outbound.routes[{number}].observe_until" for number, kind in enumerate(kinds) if kind != "passthrough"
    }


def test_the_example_observes_until_one_day_and_loads_before_and_after_it(tmp_path: Path) -> None:
    ceiling = written(tmp_path, changed(PLATFORM, ("observe_until", True), ("plain", True)))
    for clock in (NOW.timestamp, lambda: NOW.timestamp() + 400 * 86_400):
        settings = load_sidecar(EXAMPLES / "observe.yaml", {}, ceiling, clock=clock)
        assert settings.inbound is not None
        assert settings.inbound.plain is not None
        assert {*settings.observe_until.values(), settings.inbound.plain.until} == {start_of("2026-12-15")}
        assert len(settings.observe_until) == 2
    with pytest.raises(ConfigError, match="30 days ahead"):
        load_sidecar(EXAMPLES / "observe.yaml", {}, ceiling, clock=lambda: NOW.timestamp() - 14 * 86_400)


def of_page(begins: str) -> dict[str, Any]:
    """Return the file of the page that begins so."""
    page = (EXAMPLES.parent / "docs" / "observe.md").read_text()
    block = next(block for block in page.split("```yaml\n") if block.lstrip().startswith(begins))
    document = parse_document(textwrap.dedent(block.partition("   ```")[0]), name="page")
    assert isinstance(document, dict)
    return document


def under_the_page_s_ceiling(folder: Path, document: object) -> SidecarSettings:
    ceiling = written(folder, of_page("issuers:"))
    (folder / "sidecar").mkdir()
    return load_sidecar(written(folder / "sidecar", document), {}, ceiling, clock=NOW.timestamp)


def test_the_files_with_which_the_page_begins_can_be_used(tmp_path: Path) -> None:
    settings = under_the_page_s_ceiling(tmp_path, of_page("identity:"))
    assert list(settings.observe_until) == [("inbound", "everything")]


def test_a_route_for_everything_takes_only_what_no_longer_path_matches(tmp_path: Path) -> None:
    document = of_page("identity:")
    (everything,) = document["inbound"]["routes"]
    customers = {"name": "customers", "match": {"path_prefix": "/customers", "methods": ["GET"]}}
    document["inbound"]["routes"].append({**everything, **customers})
    routes = under_the_page_s_ceiling(tmp_path, document).inbound_routes
    assert [routes.find("GET", path).name for path in ("/customers/1", "/orders")] == ["customers", "everything"]
    for method, path, reason in (
        ("POST", "/customers/1", Reason.METHOD_REFUSED),
        ("GET", "/Customers/1", Reason.NO_ROUTE),
    ):
        with pytest.raises(Denied) as refused:
            routes.find(method, path)
        assert refused.value.reason is reason


def test_tokens_of_the_platform_s_issuers_are_known_to_every_workload(tmp_path: Path) -> None:
    ceiling = written(tmp_path, PLATFORM)
    workload = SpiffeId("spiffe://acme.example/agent/writer")
    alone = load_sidecar(EXAMPLES / "agent.yaml", {}).policy(workload, 1)
    below = load_sidecar(EXAMPLES / "agent.yaml", {}, ceiling).policy(workload, 1)
    for section in PLATFORM["login_issuers"]:
        assert (alone.knows_issuer(section["issuer"]), below.knows_issuer(section["issuer"])) == (False, True)
    assert not below.knows_issuer("https://else.example")


def test_without_the_key_a_route_never_observes(tmp_path: Path) -> None:
    settings = load_sidecar(written(tmp_path, AGENT), {}, clock=NOW.timestamp)
    assert [route.observe_until for route in settings.inbound_routes.routes] == [0] * len(
        settings.inbound_routes.routes
    )
    assert settings.observe_until == {}
    assert start_of("1970-01-02") == 86_400
