"""Size, time and memory of settings at the advertised size: ``make settings-size``.

Each case is loaded as at a start, in a forked child of a separate process. Measures the seconds of CPU (the duration of
a start on an idle machine), the child's peak memory, and the memory that the serving process keeps, including code.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from sidecar.config.loader import SettingsFiles, load_at_start

AGENTS: Final = 500
ROOT: Final = Path(__file__).parent.parent
LOGIN: Final = "https://login.acme.example"


def name_of(number: int) -> str:
    """Return the SPIFFE ID of an agent."""
    return f"spiffe://acme.example/ns/team-{number % 20}/sa/agent-{number}"


def rule_of(number: int) -> dict[str, Any]:
    """Return a rule that is unique for ``number``: it permits a caller of an agent."""
    actor, audience = number % AGENTS, (number + number // AGENTS + 1) % AGENTS
    subjects = [{"issuer": LOGIN, "subject": "*"}]
    return {"actor": name_of(actor), "subjects": subjects, "audience": name_of(audience), "scopes": ["agent.call"]}


def write_sts(folder: Path, edges: int) -> None:
    """Write a token service's settings with ``edges`` rules, in one file per team."""
    login = {"issuer": LOGIN, "jwks": f"{LOGIN}/keys", "tls": {"peer": "spiffe://acme.example/login"}}
    login |= {"profile": "oidc-access-token", "scope_from": {"claim": "scope", "map": {"call": ["agent.call"]}}}
    own = {"issuer": "https://sts.acme.example", "keys": {"directory": "/keys"}, "login_issuers": [login]}
    own |= {"identity": {"workload_api": "unix:///api.sock"}, "include": ["teams"], "rules": []}
    own |= {"targets": [{"workload": name_of(number), "scopes": ["agent.call"]} for number in range(AGENTS)]}
    (folder / "teams").mkdir()
    for team in range(20):
        rules = [rule_of(number) for number in range(team, edges, 20)]
        (folder / f"teams/{team:02}.yaml").write_text(json.dumps({"rules": rules}))
    (folder / "sts.yaml").write_text(json.dumps(own))


def write_sidecar(folder: Path, denied: int) -> None:
    """Write the example of a sidecar with ``denied`` rows of ``deny``."""
    text = (ROOT / "config/agent.yaml").read_text()
    rows = [{"actor": name_of(number), "note": f"INC-{number}"} for number in range(denied)]
    (folder / "deny.yaml").write_text(json.dumps({"deny": rows}))
    (folder / "agent.yaml").write_text(f"{text}\ninclude: [deny.yaml]\n")


def measure(kind: str, rows: int) -> None:
    """Print one line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = write_sts if kind == "edges" else write_sidecar
        if not (child := os.fork()):  # in a child: memory that writing frees would distort the measurement
            write(folder, rows)
            os._exit(0)
        os.waitpid(child, 0)
        sts, sidecar = folder / "sts.yaml", folder / "agent.yaml"
        files = SettingsFiles("sts", sts) if kind == "edges" else SettingsFiles("sidecar", sidecar)
        size = sum(path.stat().st_size for path in folder.rglob("*.yaml"))
        before = resident_kib()
        began_s = time.process_time()
        loaded = load_at_start(files, dict(os.environ))
        used_by = resource.getrusage(resource.RUSAGE_CHILDREN)
        took_s = used_by.ru_utime + used_by.ru_stime + time.process_time() - began_s
        kept_kib = resident_kib() - before
        nodes, loader_mib = loaded.settings.used["nodes"], used_by.ru_maxrss >> 10
        print(f"| {rows:,} {kind} | {size:,} | {nodes:,} | {took_s:.1f} | {loader_mib} | {kept_kib >> 10} |")


def resident_kib() -> int:
    """Return the resident memory of this process in KiB, after a garbage collection."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


def main() -> None:
    """Measure every case in a process of its own."""
    print("| settings | bytes | nodes | seconds of CPU | MiB of the loader | MiB kept |")
    print("| --- | --- | --- | --- | --- | --- |")
    sys.stdout.flush()
    for kind, rows in (("edges", 1000), ("edges", 5000), ("edges", 10_000), ("deny rows", 1000), ("deny rows", 10_000)):
        subprocess.run([sys.executable, __file__, kind, str(rows)], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main()
