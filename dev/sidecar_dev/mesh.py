"""The development mesh: each part is a process on loopback, identified by its process id.

front, planner, writer and a tool server, the CRM, each beside its sidecar; a Workload API with two trust domains, a
user issuer and a token service. No process gets a secret: the Workload API recognises the processes that the launcher
started.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidecar_dev import mesh_settings
from sidecar_dev.mesh_settings import (
    CARELESS_STS,
    CLIENT_ID,
    CRM,
    FRONT,
    INTRUDER,
    PARTNER_DOMAIN,
    PLANNER,
    STS,
    TRUST_DOMAIN,
    WRITER,
    Places,
)
from sidecar_dev.processes import ProcessError, Processes, answers, free_ports, listens

MeshError = ProcessError  # the mesh cannot be started

AGENTS: Final = ("front", "planner", "writer", "crm")
ENDPOINTS: Final = {"planner": "/a2a", "writer": "/a2a", "crm": "/mcp"}  # what agents call, and its path
SIDECARS: Final = {"front": FRONT, "planner": PLANNER, "writer": WRITER, "crm": CRM, "careless": FRONT}
ATTACKERS: Final = {"front": FRONT, "planner": PLANNER, "writer": WRITER, "crm": CRM, "intruder": INTRUDER}
_PORTS: Final = (
    "sts",
    "sts-probe",
    "careless-sts",
    "login",
    *AGENTS,
    *(f"bare-{name}" for name in AGENTS),
    *(f"{name}-{kind}" for name in SIDECARS for kind in ("in", "out", "probe")),
)


class Mesh:
    """The processes of one mesh. A context manager that starts and stops them.

    ``directory`` gets settings, records, logs and the attackers' SVIDs. Keep its path short: it has a Unix socket.
    """

    def __init__(self, directory: Path) -> None:
        self.places = Places(directory=directory, ports=dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True)))
        self._processes = Processes(directory)
        self._pids: dict[str, list[int]] = {}

    def __enter__(self) -> Mesh:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def records(self, name: str) -> Path:
        """Return the record file of a sidecar, or of ``sts``."""
        return self.places.directory / f"{name}.records"

    def pid(self, name: str) -> int:
        """Return the process id of a process of the mesh."""
        return self._processes.pid(name)

    def svid(self, name: str) -> Path:
        """Return an attacker's folder, with svid.pem, svid_key.pem, bundle.pem and jwt_svid.token."""
        return self.places.directory / "svids" / name

    def seen(self, name: str) -> Path:
        """Return the file with the headers of the agent's last request."""
        return self.places.directory / f"{name}.seen"

    def access_log(self, name: str) -> Path:
        """Return the access log of an agent without a sidecar."""
        return self.places.directory / f"{name}.access.log"

    @property
    def authorities(self) -> Path:
        """Certificates and private keys of the trust domains' CAs: the demo signs its forgeries with them."""
        return self.places.directory / "authorities"

    def stop(self) -> None:
        """Stop every process, agents first, so that sidecars can finish the requests in flight."""
        self._processes.stop()

    def _start(self) -> None:
        places = self.places
        self._write_settings()
        self._command("workload-api", _workload_api(places, self.authorities))
        self._command("login", _user_issuer(places))
        self._processes.wait_for("workload-api", places.socket.exists)
        self._command("sts", ["sts", "--config", str(places.directory / "sts.yaml")], STS)
        for name, spiffe_id in SIDECARS.items():
            self._command(f"{name}-sidecar", ["run", "--config", str(places.directory / f"{name}.yaml")], spiffe_id)
        for name in AGENTS:
            self._agent(name)
            self._bare_agent(name)
        self._careless_sts()
        for name, spiffe_id in ATTACKERS.items():
            self._command(f"{name}-svid", _fetch_svid(places, self.svid(name)), spiffe_id)
        self._register()
        for name in ("sts", *SIDECARS):
            process = name if name == "sts" else f"{name}-sidecar"
            self._processes.wait_for(process, lambda port=f"{name}-probe": answers(f"http://{places.at(port)}/readyz"))  # type: ignore[misc]
        for name in (*AGENTS, *(f"bare-{name}" for name in AGENTS)):
            self._processes.wait_for(name, lambda port=name: listens(places.ports[port]))  # type: ignore[misc]
        for name in ATTACKERS:
            self._processes.wait_for_end(f"{name}-svid")

    def _write_settings(self) -> None:
        places = self.places
        for name in SIDECARS:
            mesh_settings.write(places.directory / f"{name}.yaml", getattr(mesh_settings, name)(places))
        mesh_settings.write(
            places.directory / "sts.yaml",
            {**mesh_settings.sts(places), "records": {"sink": {"file": str(self.records("sts"))}}},
        )
        self._register()

    def _register(self) -> None:
        """Write the Workload API's entries: the workload of each process."""
        mesh_settings.write(self.places.directory / "entries.yaml", mesh_settings.entries(self._pids))

    def _agent(self, name: str) -> None:
        """Start an agent beside its sidecar. It calls every other service through the sidecar's outbound port."""
        own = f"http://{self.places.at(f'{name}-out')}"
        urls = {target: f"{own}/{target}{path}" for target, path in ENDPOINTS.items()}
        self._run_agent(name, name, urls, ["--seen", str(self.seen(name))])

    def _bare_agent(self, name: str) -> None:
        """Start the same program without a sidecar. It calls the other agents directly, and writes an access log."""
        urls = {target: f"http://{self.places.at(f'bare-{target}')}{path}" for target, path in ENDPOINTS.items()}
        self._run_agent(f"bare-{name}", name, urls, ["--access-log", str(self.access_log(name))])

    def _run_agent(self, process: str, program: str, urls: dict[str, str], options: Sequence[str]) -> None:
        environment = {f"{target.upper()}_URL": url for target, url in urls.items()}
        command = [sys.executable, "-m", "sidecar_dev.demo_agents", program, "--listen", self.places.at(process)]
        self._processes.start(process, [*command, *options], environment)

    def _careless_sts(self) -> None:
        command = [sys.executable, "-m", "sidecar_dev.careless_sts", "--socket", str(self.places.socket)]
        command += ["--listen", self.places.at("careless-sts")]
        self._pids[CARELESS_STS] = [self._processes.start("careless-sts", command)]

    def _command(self, name: str, arguments: Sequence[str], spiffe_id: str | None = None) -> None:
        pid = self._processes.start_sidecar(name, *arguments)
        if spiffe_id is not None:
            self._pids.setdefault(spiffe_id, []).append(pid)


def _workload_api(places: Places, authorities: Path) -> list[str]:
    entries = str(places.directory / "entries.yaml")
    options = ["--socket", str(places.socket), "--entries", entries, "--authorities", str(authorities)]
    return ["dev", "workload-api", *options, "--trust-domain", TRUST_DOMAIN, "--trust-domain", PARTNER_DOMAIN]


def _user_issuer(places: Places) -> list[str]:
    users = ["--user", "alice", "--user", "bob"]
    return ["dev", "user-issuer", "--listen", places.at("login"), *users, "--client", CLIENT_ID]


def _fetch_svid(places: Places, folder: Path) -> list[str]:
    folder.mkdir(parents=True, mode=0o700)
    return ["dev", "svid", "--socket", str(places.socket), "--out", str(folder), "--audience", places.sts]
