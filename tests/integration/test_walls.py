"""Each process loads only its own rooms, within a budget of lines: by what a real interpreter has imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest
import yaml

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.engine import native_module
from sidecar_dev.pki import TrustDomainAuthority
from tests.injector.pods import RENDERED
from tests.injector.serving import write_pair
from tests.integration.world import START_S, free_port
from tests.native import needs_native
from tests.walls import END, WALLS, Held, page, room_of, written

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parents[2]
RECORDS: Final = str(ROOT / "tests/audit/recorded")
TRUST_DOMAIN: Final = "acme.example"
STS: Final = f"https://sts.{TRUST_DOMAIN}"
LOGIN: Final = f"https://login.{TRUST_DOMAIN}"

# Records the importer of each module of ours. A served child (of a fork) writes nothing.
RECORDER: Final = """
import atexit, json, os, sys

out, own, importers = sys.argv.pop(1), os.getpid(), {}
OURS = {"sidecar", "delegation_core", "delegation_audit"}

class Recorder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            frame = sys._getframe(1)
            while frame and frame.f_globals.get("__name__", "").partition(".")[0] == "importlib":
                frame = frame.f_back
            importers.setdefault(name, frame.f_globals.get("__name__", "") if frame else "")

def write():
    if os.getpid() == own:
        held = {name: importers.get(name, "") for name in sys.modules if name.partition(".")[0] in OURS}
        with open(out, "w") as file:
            json.dump(held, file)

sys.meta_path.insert(0, Recorder)
atexit.register(write)
from sidecar.cli import main
sys.exit(main())
"""

Arguments = tuple[list[str], int | None]  # words of the command, and the probe's port of a process that serves


def identity(folder: Path, authority: TrustDomainAuthority, name: str) -> dict[str, Any]:
    """Write the files of an identity; return the settings that name them."""
    spiffe_id = SpiffeId(f"spiffe://{TRUST_DOMAIN}/{name}")
    issued = authority.issue_x509(spiffe_id)
    files = {"certificate": issued.chain_pem, "key": issued.key_pem, "bundle": authority.bundle_pem()}
    for file, content in files.items():
        (folder / file).write_bytes(content)
        (folder / file).chmod(0o600)
    (folder / "jwt").write_text(authority.issue_jwt(spiffe_id, STS))
    (folder / "jwks").write_bytes(authority.jwt_bundle())
    tokens = {"jwt_bundles": str(folder / "jwks")} if name == "sts" else {"jwt_svids": {STS: str(folder / "jwt")}}
    return {"spiffe_id": str(spiffe_id), "files": {**{file: str(folder / file) for file in files}, **tokens}}


def address() -> str:
    return f"127.0.0.1:{free_port()}"


def written_to(folder: Path, document: Mapping[str, Any]) -> tuple[str, int]:
    """Write settings; return their path, and the port of the probe."""
    path = folder / "settings.yaml"
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
    return str(path), int(document["probe"]["listen"].rpartition(":")[2])


def sidecar(folder: Path, authority: TrustDomainAuthority, **more: Any) -> tuple[str, int]:
    tool = f"spiffe://{TRUST_DOMAIN}/tool/crm"
    inbound = {
        "name": "search",
        "match": {"path": "/search", "methods": ["POST"]},
        "scopes": ["crm.read"],
        "peers": [tool],
    }
    outbound = {"name": "crm", "match": {"host": "crm.mesh"}, "upstream": "https://127.0.0.1:1", "peer": tool}
    document = {
        "identity": identity(folder, authority, "agent"),
        "probe": {"listen": address()},
        "issuers": [
            {
                "issuer": STS,
                "jwks": "https://127.0.0.1:1/jwks",
                "profile": "sts",
                "actor_trust_domains": [TRUST_DOMAIN],
                "scopes": ["crm.read"],
            }
        ],
        "inbound": {"listen": address(), "agent": "http://127.0.0.1:1", "routes": [{**inbound, "may_call": ["crm"]}]},
        "outbound": {"listen": address(), "routes": [{**outbound, "audience": tool, "scopes": ["crm.read"]}]},
        "exchange": {
            "issuer": STS,
            "token_endpoint": "https://127.0.0.1:1/token",
            "peer": f"spiffe://{TRUST_DOMAIN}/s",
        },
        "engine": "python",  # the native one has a wall of its own: its gates are parts of the proxy
        **more,
    }
    return written_to(folder, document)


def token_service(folder: Path, authority: TrustDomainAuthority, **more: Any) -> tuple[str, int]:
    agent, front = f"spiffe://{TRUST_DOMAIN}/agent", f"spiffe://{TRUST_DOMAIN}/front"
    users = [{"issuer": LOGIN, "subject": "*"}]
    login = {"profile": "oidc-access-token", "scope_from": {"claim": "scope", "map": {"crm": ["crm.read"]}}}
    document = {
        "issuer": STS,
        "listen": address(),
        "probe": {"listen": address()},
        "identity": identity(folder, authority, "sts"),
        "keys": "ephemeral",
        "login_issuers": [
            {"issuer": LOGIN, "jwks": "https://127.0.0.1:1/keys", "tls": {"ca": str(folder / "bundle")}, **login}
        ],
        "entries": [{"workload": front, "client_ids": {LOGIN: "front"}}],
        "targets": [{"workload": agent, "scopes": ["crm.read"]}],
        "rules": [{"actor": front, "subjects": users, "audience": agent, "scopes": ["crm.read"]}],
        **more,
    }
    return written_to(folder, document)


def injector(folder: Path, authority: TrustDomainAuthority) -> Arguments:
    (folder / "injection.json").write_bytes(RENDERED)
    write_pair(folder, authority)
    probe = free_port()
    files = ["--injection", str(folder / "injection.json"), "--tls", str(folder)]
    return ["injector", *files, "--listen", address(), "--probe", f"127.0.0.1:{probe}"], probe


def served(command: str, make: Callable[..., tuple[str, int]], *words: str, **more: Any) -> Callable[..., Arguments]:
    """Return the start of a process that serves by settings."""

    def start(folder: Path, authority: TrustDomainAuthority) -> Arguments:
        path, probe = make(folder, authority, **more)
        return [command, "--config", path, *words], probe

    return start


def ended(*words: str) -> Callable[..., Arguments]:
    """Return the start of a process that does its work and ends."""
    return lambda folder, _: ([word.replace("FOLDER", str(folder)) for word in words], None)


OPERATOR: Final = {"spiffe_id": f"spiffe://{TRUST_DOMAIN}/operator/ann", "may": ["txn"]}
NATIVE: Final = "sidecar, HTTP/1.1 alone, native engine"
PROCESSES: Final[Mapping[str, Callable[..., Arguments]]] = {
    "sidecar, HTTP/1.1 alone": served("run", sidecar),
    NATIVE: served("run", sidecar, engine="native"),
    "sidecar, HTTP/2": served("run", sidecar, protocols={"http2": True}),
    "parent of workers": served("run", sidecar, "--workers", "2"),
    "token service": served("sts", token_service),
    "token service, revocations": served("sts", token_service, revocation={"operators": [OPERATOR]}),
    "injector": injector,
    "healthcheck": ended("healthcheck", "--probe", "127.0.0.1:1"),
    "status": ended("status", "--socket", "FOLDER/none"),
    "check": ended("check", str(ROOT / "config/agent.yaml")),
    "explain": ended("explain", RECORDS),
    "sts doctor": ended(
        *["sts", "doctor", "https://127.0.0.1:1", "--subject", "none", "--client", "a", "client_secret_basic", "none"]
    ),
    "sts revoke": ended(
        *["sts", "revoke", "--list", "--to", "https://127.0.0.1:1", "--peer", "spiffe://acme.example/sts"]
    ),
    "audit all": ended("audit", "all", RECORDS),
    "audit attribution": ended("audit", "attribution", f"{RECORDS}/crm.records"),
    "audit chains": ended("audit", "chains", RECORDS),
    "audit report": ended("audit", "report", RECORDS, "-o", "FOLDER/page.html"),
    "audit ratio": ended("audit", "ratio", f"{RECORDS}/crm.records"),
    "audit export": ended("audit", "export", f"{RECORDS}/crm.records", "--as", "ecs"),
    "audit verify": ended("audit", "verify", RECORDS),
    "audit credentials": ended("audit", "credentials", RECORDS),
    "audit selectors": ended("audit", "selectors", str(ROOT / "tests/audit/selectors/data/spire-1.13.3.json")),
    "audit suggest": ended("audit", "suggest", RECORDS),
    "audit replay": ended("audit", "replay", RECORDS, "--settings", f"{RECORDS}/crm.yaml"),
}


def held_by(folder: Path, start: Callable[..., Arguments]) -> Held:
    """Run one process until it serves, is scraped and told to end, or until its work is done."""
    words, probe = start(folder, TrustDomainAuthority(TrustDomain(TRUST_DOMAIN)))
    out = folder / "modules.json"
    command = [sys.executable, "-c", RECORDER, str(out), *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if probe is not None:
            wait_for(probe, process)
            process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=START_S)
    finally:
        process.kill()
        process.wait()
    assert out.is_file(), output
    assert "Traceback" not in output[1], output
    assert "usage: " not in output[1], output
    assert process.returncode == 0 or probe is None, output
    return Held(json.loads(out.read_text()))


def wait_for(probe: int, process: subprocess.Popen[str]) -> None:
    """Scrape the probe as soon as it listens."""
    listening = f":{probe:04X} 00000000:0000 0A"
    while process.poll() is None and listening not in Path("/proc/net/tcp").read_text():
        os.sched_yield()
    if process.poll() is None:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{probe}/metrics", timeout=START_S) as answer:
            answer.read()


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Held]]:
    starts = {name: start for name, start in PROCESSES.items() if name != NATIVE or native_module() is not None}
    folders = [tmp_path_factory.mktemp("process") for _ in starts]
    with ThreadPoolExecutor(3) as threads:
        yield dict(zip(starts, threads.map(held_by, folders, starts.values()), strict=True))


def test_each_process_has_a_wall() -> None:
    assert [*PROCESSES] == [*WALLS]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_native) if name == NATIVE else name for name in PROCESSES]
)
def test_a_process_loads_no_other_room_and_no_more_lines(held: Mapping[str, Held], name: str) -> None:
    process, wall = held[name], WALLS[name]
    strange = [process.chain(module) for module in process.importers if room_of(module) not in {*wall.rooms, ""}]
    assert strange == []
    largest = sorted(process.rooms().items(), key=lambda room: -room[1])
    assert process.lines <= wall.lines, f"{process.lines} lines of {wall.lines}: {largest}"
    assert wall.rooms <= {*process.rooms()}, "a wall names only rooms that are loaded"


@pytest.mark.parametrize("name", [name for name in PROCESSES if name.startswith("audit ") and name != "audit replay"])
def test_the_audit_loads_no_part_of_the_data_plane(held: Mapping[str, Held], name: str) -> None:
    assert held[name].rooms().keys().isdisjoint({"wire", "proxy", "exchange", "identity"})


def test_the_chain_of_importers_is_named() -> None:
    held = Held({"sidecar.cli": "__main__", "sidecar.app": "sidecar.cli", "sidecar.features.door.door": "sidecar.app"})
    assert (
        held.chain("sidecar.features.door.door") == "__main__ → sidecar.cli → sidecar.app → sidecar.features.door.door"
    )


def test_the_page_of_the_architecture_is_that_of_the_walls() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert END in page()
    assert written(text) == text, "run `make docs`"
