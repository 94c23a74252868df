"""The files of config/spire: the real programs accept them, and their entries are not weak."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from delegation_audit.selectors.examination import examine
from tests.interop.engine import require
from tests.interop.spire import SHIPPED, Spire, missing

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

FILES = {"server.conf": "spire-server", "agent.conf": "spire-agent", "agent-kubernetes.conf": "spire-agent"}


@pytest.fixture(autouse=True)
def spire_on_path() -> None:
    require(f"not on PATH: {', '.join(missing())}" if missing() else None)


def validated(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [program, "validate", "-config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("name", FILES)
def test_spire_accepts_each_file(name: str) -> None:
    done = validated(FILES[name], SHIPPED / name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_spire_refuses_each_file_without_its_trust_domain(name: str, tmp_path: Path) -> None:
    changed = tmp_path / name
    changed.write_text(re.sub(r"^ *trust_domain = .*$", "", (SHIPPED / name).read_text(), flags=re.MULTILINE))
    done = validated(FILES[name], changed)
    assert done.returncode != 0
    assert "trust_domain" in done.stdout + done.stderr


def test_each_file_is_tested() -> None:
    assert {path.name for path in SHIPPED.glob("*.conf")} == set(FILES)


def test_an_authority_lives_six_times_as_long_as_all_that_it_signs() -> None:
    hours = {
        name: int(value) for name, value in re.findall(r"(\w+_ttl) = \"(\d+)h\"", (SHIPPED / "server.conf").read_text())
    }
    assert hours["ca_ttl"] >= 6 * max(hours["agent_ttl"], hours["default_x509_svid_ttl"])


async def test_the_entries_are_created_as_they_are_and_none_is_weak(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    async with Spire(folder, "acme.example", partner="partner.example") as spire:
        entries = str(SHIPPED / "entries.json")
        with pytest.raises(AssertionError, match="federated bundle"):  # the partner's bundle has to be there before
            await spire.server("entry", "create", "-data", entries)
        own = json.loads(await spire.server("bundle", "show", "-format", "spiffe"))
        (folder / "partner.json").write_text(json.dumps(own))
        await spire.server(
            *(
                "bundle",
                "set",
                "-format",
                "spiffe",
                "-id",
                "spiffe://partner.example",
                "-path",
                f"{folder}/partner.json",
            )
        )
        await spire.server("entry", "create", "-data", entries)
        shown = tmp_path / "shown.json"
        shown.write_text(await spire.server("entry", "show", "-output", "json"))
    found = examine([str(shown)], partners=["partner.example"])
    assert len(found.entries) == 3
    assert found.weaknesses == []


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("user:sidecar-crm", "user:sidecar-planner", "identical-selectors"),
        ("user:sidecar-crm", "user:root", "root-user"),
        ("user:sidecar-crm", "group:spiffe", "group-only"),
        ("spiffe://partner.example", "spiffe://stranger.example", "federates-with-unknown"),
    ],
)
def test_an_entry_with_one_fact_changed_is_weak(before: str, after: str, rule: str, tmp_path: Path) -> None:
    changed = tmp_path / "entries.json"
    changed.write_text((SHIPPED / "entries.json").read_text().replace(before, after))
    found = examine([str(changed)], partners=["partner.example"])
    assert rule in {one.rule.id for one in found.weaknesses}
