"""The tables of outages and of signs name existing tests and alerts, and the numbers of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from delegation_core.errors import Reason
from sidecar.identity.issuer import JwksSettings
from sidecar.observe import probe
from sidecar.observe.docs import families
from sidecar.observe.writer import STALL_S
from sidecar.proxy.journeys.watch import DENIED_S, IDENTITY_GRACE_S
from sidecar.wire.resolver import ResolverSettings

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs" / "runbook.md").read_text()
PROMETHEUS: Final = (ROOT / "docs" / "prometheus.md").read_text()
DEPENDENCIES: Final = PAGE.partition("\n## What still works")[2].partition("\n## ")[0]
SIGNS_PART: Final = PROMETHEUS.partition("\n## Signs of being up to date")[2].partition("\n## ")[0]
ROWS: Final = [line.strip("| ").split(" | ") for line in DEPENDENCIES.splitlines() if line.startswith("| ")][2:]
SIGNS: Final = [line.strip("| ").split(" | ") for line in SIGNS_PART.splitlines() if line.startswith("| ")][2:]
# Gauges that count or measure something of now, and say of nothing that it is good.
MEASURES: Final = re.compile(r"sidecar_(process_|build|records_|wall_|bypass|cache_|identities|observe_until|workers)")
COUNTS: Final = {
    "sidecar_revocations",
    "sidecar_deny_file_rows",
    "sidecar_revocation_book_ratio",
    "sidecar_settings_bound_ratio",
} | {
    "sidecar_requests_in_flight",
    "sidecar_streams",
}


def row(start: str) -> str:
    (found,) = (" | ".join(cells) for cells in ROWS if cells[0].startswith(start))
    return found


@pytest.mark.parametrize("cells", ROWS, ids=[cells[0] for cells in ROWS])
def test_each_row_is_whole_and_held_by_a_test(cells: list[str]) -> None:
    assert len(cells) == 6
    path, _, name = cells[5].strip("`").partition("::")
    assert re.search(rf"def {name}\(", (ROOT / path).read_text()), cells[5]


@pytest.mark.parametrize("cells", ROWS, ids=[cells[0] for cells in ROWS])
def test_each_alert_is_one_of_ours_with_a_heading_in_the_runbook(cells: list[str]) -> None:
    (alert,) = re.findall(r"\[(\w+)\]", cells[4])
    assert f"alert: {alert}\n" in (ROOT / "monitoring/rules/alerts.yaml").read_text()
    assert f"\n## {alert}\n" in PAGE


@pytest.mark.parametrize("cells", SIGNS, ids=[cells[0] for cells in SIGNS])
def test_each_sign_of_being_up_to_date_has_an_end_and_a_test(cells: list[str]) -> None:
    assert len(cells) == 3
    path, _, name = cells[2].strip("`").partition("::")
    assert re.search(rf"def {name}\(", (ROOT / path).read_text()), cells[2]


def test_each_gauge_of_a_state_is_among_the_signs() -> None:
    gauges = {one.text_name for one in families() if one.text_type == "gauge"}
    states = {name for name in gauges if not MEASURES.match(name)} - COUNTS
    told = set(re.findall(r"`(sidecar_[a-z_]+)`", " ".join(cells[0] for cells in SIGNS)))
    assert states == told, (
        f"{sorted(states ^ told)}: a gauge that says something is good has a row under 'Signs of being up to date' in"
        " docs/prometheus.md, with a test of its end; one that only measures belongs in MEASURES or COUNTS of this test"
    )


def test_each_reason_is_a_code() -> None:
    reasons = {word for cells in ROWS for word in re.findall(r"`([a-z_]+)`", cells[3])}
    assert reasons <= set(Reason)


def test_the_numbers_are_those_of_the_code() -> None:
    dns = ResolverSettings()
    assert f"{dns.cache_s + dns.max_stale_s:g} s after the last answer" in row("DNS")
    keys = JwksSettings(issuer="https://a.example", url="https://a.example/jwks", ca_file="/ca.pem")
    assert f"{keys.max_age_s:g} s old" in row("issuer's key server")
    assert row("our registration entry").count(f"{DENIED_S:g} s") == 2
    assert f"({IDENTITY_GRACE_S:g} s where the SVID has expired" in row("our registration entry")
    assert f"{STALL_S:g} s after the last byte" in row("record sink")


def test_nothing_waits_for_a_scrape() -> None:
    """The probe room is a listener: it calls nobody, so nobody can be missing."""
    assert not re.search(r"open_connection|ClientSession|create_connection", Path(probe.__file__).read_text())
