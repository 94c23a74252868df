"""Bootstraps the SPIRE of compose.spire.yaml at each `up`: the agent's bundle and join token, and the entries."""

import json
import os
import subprocess
import time
from pathlib import Path

SETUP = Path("/var/lib/spire/setup")
TRUST = Path("/var/lib/trust/acme.example.pem")
NODE = "spiffe://acme.example/node"


def server(*words: str) -> str:
    """Send a command to the server; return its standard output."""
    command = ["/opt/spire/bin/spire-server", *words, "-socketPath", "/run/spire/server/api.sock"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout  # noqa: S603


def entry(service: str, said: dict[str, str]) -> list[str]:
    """Return the words for one entry: containers of this project's service, by their image."""
    selectors = (
        f"docker:image_id:{os.environ[said['image']]}",
        f"docker:label:com.docker.compose.project:{os.environ['PROJECT']}",
        f"docker:label:com.docker.compose.service:{service}",
    )
    words = ["-entryID", service, "-parentID", NODE, "-spiffeID", said["spiffe_id"]]
    words += [word for one in selectors for word in ("-selector", one)]
    return words + (["-dns", said["dns"]] if "dns" in said else [])


def main() -> None:
    """Lay out what the agent needs, and register the entries."""
    bundle = server("bundle", "show")
    for path in (SETUP / "bundle.pem", TRUST):
        path.write_text(bundle)
    there = {one["id"] for one in json.loads(server("entry", "show", "-output", "json"))["entries"]}
    for service, said in json.loads(Path("/etc/spire/entries.json").read_text()).items():
        server("entry", "update" if service in there else "create", *entry(service, said))
    agents = json.loads(server("agent", "list", "-output", "json"))["agents"]
    if not any(int(one["x509svid_expires_at"]) > time.time() for one in agents):  # it comes back with its SVID
        token = server("token", "generate", "-spiffeID", NODE, "-ttl", "600", "-output", "json")
        (SETUP / "token").write_text(json.loads(token)["value"])


main()
