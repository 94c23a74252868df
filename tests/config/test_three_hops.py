"""The five files of config/three-hops: each is fine, and together they are one mesh."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.check import check
from sidecar.config.document import parse_document
from tests.config.documents import EXAMPLES

FOLDER: Final = EXAMPLES / "three-hops"
PAGE: Final = EXAMPLES.parent / "docs" / "three-hops.md"
HOPS: Final = [("front", "planner"), ("planner", "writer"), ("writer", "crm")]
NAMES: Final = ["front", "planner", "writer", "crm"]


def settings(name: str, folder: Path = FOLDER) -> Any:
    return parse_document((folder / f"{name}.yaml").read_text(), name=name)


@pytest.mark.parametrize("name", [*NAMES, "sts"])
def test_each_file_is_fine(name: str) -> None:
    assert check(FOLDER / f"{name}.yaml", {}, sts=name == "sts").problems == []


@pytest.mark.parametrize(("caller", "callee"), HOPS)
def test_each_hop_is_allowed_by_caller_token_service_and_callee(caller: str, callee: str) -> None:
    out, into, sts = settings(caller), settings(callee), settings("sts")
    (outbound,) = out["outbound"]["routes"]
    (inbound,) = into["inbound"]["routes"]
    opened = out["entry"]["may_call"] if caller == "front" else out["inbound"]["routes"][0]["may_call"]
    assert opened == [outbound["name"]]
    assert outbound["upstream"] == f"https://{into['inbound']['listen']}"
    assert outbound["audience"] == outbound["peer"]
    assert set(inbound["scopes"]) <= set(outbound["scopes"])
    (rule,) = [rule for rule in sts["rules"] if [rule["actor"]] == inbound["peers"]]
    assert (rule["audience"], rule["scopes"]) == (outbound["audience"], outbound["scopes"])


def test_the_entry_and_the_token_service_read_a_login_alike() -> None:
    (entry,), sts = settings("front")["entry"]["issuers"], settings("sts")
    (login,), (listed,) = sts["login_issuers"], sts["entries"]
    assert listed["client_ids"] == {entry["issuer"]: entry.pop("client_id")}
    assert entry == login
    assert {one["issuer"] for rule in sts["rules"] for one in rule["subjects"]} == {entry["issuer"]}


def test_no_two_parts_listen_at_one_address() -> None:
    text = "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.yaml")))
    listening = re.findall(r"listen: (127\.0\.0\.1:\d+)", text)
    assert len(listening) == len(set(listening)) == 2 + 4 + 3 + 3  # sts; probes; inbound; outbound


def test_the_commands_for_ones_own_keycloak_and_spire_leave_files_that_are_fine(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for path in FOLDER.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    authorities = tmp_path / "ca.pem"
    authorities.touch()
    subprocess.run(["bash", "-euc", block], cwd=tmp_path, check=True)
    for name in [*NAMES, "sts"]:
        path = tmp_path / f"{name}.yaml"
        path.write_text(path.read_text().replace("/etc/ssl/certs/ca-certificates.crt", str(authorities)))
        assert check(path, {}, sts=name == "sts").problems == []
    (entry,), (login,) = settings("front", tmp_path)["entry"]["issuers"], settings("sts", tmp_path)["login_issuers"]
    assert entry["issuer"] == login["issuer"] == "https://login.your.example/realms/people"
    assert entry["tls"] == login["tls"] == {"ca": str(authorities)}
    assert settings("crm", tmp_path)["identity"] == {"workload_api": "unix:///run/spire/sockets/agent.sock"}
    assert settings("crm", tmp_path)["inbound"]["routes"][0]["peers"] == ["spiffe://your.example/agent/writer"]
