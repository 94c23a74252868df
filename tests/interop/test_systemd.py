"""The systemd unit, installed by the commands of docs/systemd.md under a booted systemd."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.interop.booted_systemd import Machine, lacking, machine

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "systemd.md"
ISSUER: Final = "http://127.0.0.1:7300"
SIDECAR: Final = "/opt/sidecar/bin/sidecar"

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


def commands() -> list[str]:
    """Return the commands of the page, in order."""
    block = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    return [line for line in block.splitlines() if line]


def settings(name: str, port: int) -> str:
    """Return a user's settings, for the identities of the test."""
    return json.dumps(
        {
            "identity": {"workload_api": "unix:///run/spire/agent.sock"},
            "issuers": [
                {"issuer": ISSUER, "jwks": f"{ISSUER}/jwks", "profile": "sts", "scopes": ["docs.read"]}
                | {"actor_trust_domains": ["acme.example"]}
            ],
            "inbound": {
                "listen": f"0.0.0.0:{port}",
                "agent": f"http://127.0.0.1:{port + 1}",
                "routes": [
                    {"name": "search", "match": {"path": "/search", "methods": ["GET"]}, "scopes": ["docs.read"]}
                    | {"peers": ["spiffe://acme.example/agent/front"]}
                ],
            },
            "probe": {"listen": f"127.0.0.1:{port + 2}"},
            "admin": {"socket": f"/run/sidecar-{name}/admin.sock"},
        }
    )


def identities(booted: Machine) -> None:
    """Start replacements for SPIRE and a token service."""
    uids = {name: int(booted.run(f"id -u sidecar-{name}")) for name in ("planner", "writer")}
    entries = {
        "entries": [
            {"spiffe_id": f"spiffe://acme.example/agent/{name}", "selectors": {"uid": uid}}
            for name, uid in uids.items()
        ]
    }
    booted.run("install -d /run/spire")
    booted.run(f"cat > /run/spire/entries.yaml <<'EOF'\n{json.dumps(entries)}\nEOF")
    api = "dev workload-api --socket /run/spire/agent.sock --socket-mode 666 --entries /run/spire/entries.yaml"
    booted.run(f"systemd-run --unit=spire {SIDECAR} {api} --trust-domain acme.example")
    booted.run(f"systemd-run --unit=issuer {SIDECAR} dev user-issuer --user alice --client front")


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if (why := lacking()) is not None:
        assert "CI" not in os.environ, why
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("machine")
    lines = commands()
    first = next(number for number, line in enumerate(lines) if line.startswith("install "))
    prepare = "\n".join(
        [
            *lines[:first],  # they install from registries, which the booted machine cannot reach
            *(line.replace("planner", "writer") for line in lines[:first] if line.startswith("useradd")),
            "/opt/sidecar/bin/pip install --no-deps ./dev",  # the replacements for SPIRE and a token service
        ]
    )
    with machine(folder, ROOT, before=prepare) as started:
        identities(started)
        started.run("mkdir -p /tmp/planner /tmp/writer && cp -r systemd /tmp/planner && cp -r systemd /tmp/writer")
        for name, port in (("planner", 7443), ("writer", 8443)):
            started.run(f"cat > /tmp/{name}/{name}.yaml <<'EOF'\n{settings(name, port)}\nEOF")
            for line in lines[first:]:
                started.run(f"cd /tmp/{name} && {line.replace('planner', name)}")
        yield started


def test_the_unit_starts_as_documented_and_serves(booted: Machine) -> None:
    for name in ("planner", "writer"):
        assert booted.run(f"systemctl is-active sidecar@{name}").strip() == "active"
        status = json.loads(booted.run(f"{SIDECAR} status --socket /run/sidecar-{name}/admin.sock --json"))
        assert status["ready"], status["missing"]
        assert status["identity"]["spiffe_id"] == f"spiffe://acme.example/agent/{name}"


def test_each_instance_has_a_record_folder_of_its_own(booted: Machine) -> None:
    for name in ("planner", "writer"):
        owner = booted.run(f"stat -c '%U %a' /var/log/sidecar-{name}").strip()
        assert owner == f"sidecar-{name} 700"
        events = [json.loads(line)["event"] for line in booted.run(f"cat /var/log/sidecar-{name}/records").splitlines()]
        assert "started" in events


@pytest.mark.parametrize("command", ["cat", "truncate -s 0", "rm -f", "mv -t /tmp"])
def test_no_instance_reads_or_changes_the_records_of_another(booted: Machine, command: str) -> None:
    as_user = "setpriv --clear-groups --reuid=sidecar-{0} --regid=sidecar-{0} {1} /var/log/sidecar-planner/records"
    booted.run(as_user.format("writer", command), fails=True)
    booted.run(as_user.format("planner", "cat"))


def test_the_sandbox_lets_it_watch_for_ways_round(booted: Machine) -> None:
    status = json.loads(booted.run(f"{SIDECAR} status --socket /run/sidecar-planner/admin.sock --json"))
    assert status["bypass"] == {"listeners": [], "refused": False, "error": None}


def test_records_go_on_in_a_new_file_after_a_rotation(booted: Machine) -> None:
    records = "/var/log/sidecar-planner/records"
    booted.run(f"mv {records} {records}.1 && systemctl reload sidecar@planner")
    booted.run("curl -sk https://127.0.0.1:7443/ || true")  # a refused handshake leaves a record
    booted.run(f"for _ in $(seq 100); do [ -s {records} ] && exit 0; sleep 0.1; done; exit 1")
    assert booted.run(f"stat -c '%U %a' {records}").strip() == "sidecar-planner 600"


def test_it_stops_in_order_and_a_killed_one_comes_back(booted: Machine) -> None:
    before = booted.run("systemctl show -p MainPID --value sidecar@writer").strip()
    booted.run("systemctl kill -s KILL sidecar@writer")
    booted.run(f"{SIDECAR} healthcheck --config /etc/sidecar/writer.yaml --wait 30")
    assert booted.run("systemctl show -p MainPID --value sidecar@writer").strip() not in {before, "0"}
    booted.run("systemctl stop sidecar@writer")
    assert booted.run("systemctl show -p Result --value sidecar@writer").strip() == "success"
    last = booted.run("tail -n 1 /var/log/sidecar-writer/records")
    assert json.loads(last)["event"] == "stopped"
    booted.run("systemctl start sidecar@writer")


def test_settings_that_cannot_be_used_are_told_and_not_tried_again(booted: Machine) -> None:
    booted.run("echo 'nonsense: 1' > /etc/sidecar/broken.yaml && chmod 644 /etc/sidecar/broken.yaml")
    booted.run("useradd --system --user-group --no-create-home sidecar-broken")
    booted.run("systemctl start sidecar@broken || true")
    booted.run("for _ in $(seq 100); do systemctl is-failed -q sidecar@broken && exit 0; sleep 0.1; done; exit 1")
    assert booted.run("systemctl show -p NRestarts --value sidecar@broken").strip() == "0"
    assert "nonsense: is not a setting" in booted.run("journalctl -u sidecar@broken --no-pager")
