"""The development mesh: every part a process of its own, on loopback, with identities by process.

front, planner, writer and a CRM tool, each beside its sidecar; a Workload API with two trust domains, a user issuer
and a token service. Nobody is given a secret: the Workload API knows the processes the launcher started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sidecar.dev import mesh_settings
from sidecar.dev.mesh_settings import (
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

AGENTS: Final = ("front", "planner", "writer", "crm")
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
_PATIENCE_S: Final = 60.0
_STOP_S: Final = 5.0
_LOOK_S: Final = 0.02


class MeshError(Exception):
    """The mesh cannot be brought up. The text says which process failed, and what it said last."""


class Mesh:
    """The processes of one mesh. A context manager: what it starts, it stops.

    ``directory`` gets settings, records, logs and the attackers' SVIDs; keep its path short, a socket lives in it.
    """

    def __init__(self, directory: Path) -> None:
        self.places = Places(directory=directory, ports=dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True)))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
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
        """The record file of a sidecar, or of ``sts``."""
        return self.places.directory / f"{name}.records"

    def svid(self, name: str) -> Path:
        """The folder with svid.pem, svid_key.pem, bundle.pem and jwt_svid.token that an attacker holds."""
        return self.places.directory / "svids" / name

    def seen(self, name: str) -> Path:
        """What the agent was given with its last request."""
        return self.places.directory / f"{name}.seen"

    def access_log(self, name: str) -> Path:
        """The access log of an agent without a sidecar."""
        return self.places.directory / f"{name}.access.log"

    @property
    def authorities(self) -> Path:
        """Certificates and private keys of the trust domains' CAs: the demo signs its forgeries with them."""
        return self.places.directory / "authorities"

    def stop(self) -> None:
        """Stop every process, agents first, so that sidecars can finish what is in flight."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _start(self) -> None:
        places = self.places
        self._write_settings()
        self._command("workload-api", _workload_api(places, self.authorities))
        self._command("login", _user_issuer(places))
        self._wait("workload-api", places.socket.exists)
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
            self._wait(process, lambda port=f"{name}-probe": _answers(f"http://{places.at(port)}/readyz"))  # type: ignore[misc]
        for name in (*AGENTS, *(f"bare-{name}" for name in AGENTS)):
            self._wait(name, lambda port=name: _listens(places.ports[port]))  # type: ignore[misc]
        for name in ATTACKERS:
            self._wait_for_end(f"{name}-svid")

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
        """Tell the Workload API which processes are which workloads."""
        mesh_settings.write(self.places.directory / "entries.yaml", mesh_settings.entries(self._pids))

    def _agent(self, name: str) -> None:
        """An agent beside its sidecar: every other service has a name on the sidecar's outbound port."""
        own = f"http://{self.places.at(f'{name}-out')}"
        urls = {target: f"{own}/{target}" for target in (*AGENTS, "crm-export")}
        self._run_agent(name, name, urls, ["--seen", str(self.seen(name))])

    def _bare_agent(self, name: str) -> None:
        """The same program without a sidecar: the others' own addresses, and nothing but its access log."""
        urls = {target: f"http://{self.places.at(f'bare-{target}')}" for target in AGENTS}
        urls["crm-export"] = urls["crm"]
        self._run_agent(f"bare-{name}", name, urls, ["--access-log", str(self.access_log(name))])

    def _run_agent(self, process: str, program: str, urls: dict[str, str], options: Sequence[str]) -> None:
        environment = {f"{target.upper().replace('-', '_')}_URL": url for target, url in urls.items()}
        command = [sys.executable, "-m", "sidecar.dev.agents", program, "--listen", self.places.at(process)]
        self._spawn(process, [*command, *options], environment)

    def _careless_sts(self) -> None:
        command = [sys.executable, "-m", "sidecar.dev.careless_sts", "--socket", str(self.places.socket)]
        process = self._spawn("careless-sts", [*command, "--port", str(self.places.ports["careless-sts"])], {})
        self._pids.setdefault(CARELESS_STS, []).append(process.pid)

    def _command(self, name: str, arguments: Sequence[str], spiffe_id: str | None = None) -> None:
        process = self._spawn(name, [sys.executable, "-m", "sidecar.cli", *arguments], {})
        if spiffe_id is not None:
            self._pids.setdefault(spiffe_id, []).append(process.pid)

    def _spawn(self, name: str, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own programs
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is ours to handle: the mesh stops in order
            )
        self._running[name] = process
        return process

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not is_there():
            code = self._running[name].poll()
            if code is not None:
                raise MeshError(f"{name} ended with exit code {code}:\n{self._last_words(name)}")
            if time.monotonic() > deadline:
                raise MeshError(f"{name} is not there after {_PATIENCE_S:.0f} s:\n{self._last_words(name)}")
            time.sleep(_LOOK_S)

    def _wait_for_end(self, name: str) -> None:
        try:
            code = self._running[name].wait(_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise MeshError(f"{name} does not end:\n{self._last_words(name)}") from error
        if code != 0:
            raise MeshError(f"{name} ended with exit code {code}:\n{self._last_words(name)}")

    def _log(self, name: str) -> Path:
        return self.places.directory / f"{name}.log"

    def _last_words(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-12:])


def _workload_api(places: Places, authorities: Path) -> list[str]:
    entries = str(places.directory / "entries.yaml")
    options = ["--socket", str(places.socket), "--entries", entries, "--authorities", str(authorities)]
    return ["dev", "workload-api", *options, "--trust-domain", TRUST_DOMAIN, "--trust-domain", PARTNER_DOMAIN]


def _user_issuer(places: Places) -> list[str]:
    return ["dev", "user-issuer", "--listen", places.at("login"), "--user", "alice", "--client", CLIENT_ID]


def _fetch_svid(places: Places, folder: Path) -> list[str]:
    folder.mkdir(parents=True, mode=0o700)
    return ["dev", "svid", "--socket", str(places.socket), "--out", str(folder), "--audience", places.sts]


def _free_ports(count: int) -> list[int]:
    """Ports nobody uses now. All are held at once, so that none is given twice."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
