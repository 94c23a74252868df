"""The mesh around one agent program: starts its processes, follows them, and stops them in order."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

from delegation_core.errors import ConfigError, Problem
from sidecar.features.operations.settings import protocol_settings
from sidecar_dev import card_check, printed_calls, run_settings
from sidecar_dev.curl import HEADER_FILE_SINCE, curl_problem, version_text
from sidecar_dev.files import write_whole
from sidecar_dev.mcp_tools import calls, list_tools
from sidecar_dev.mesh_settings import CLIENT_ID, LOGIN_SCOPE, TRUST_DOMAIN, Places, Settings, write
from sidecar_dev.processes import Processes, answers, free_ports, listens
from sidecar_dev.production_settings import refusals_in, seen_in, text_of
from sidecar_dev.run_plan import Plan, Service
from sidecar_dev.tail import Tail

_LOOK_S: Final = 0.1
_HINT_S: Final = 3.0
_LIFE_S: Final = 86_400  # of the user's token: a working day
_COMMAND: Final = "command"
_SVID: Final = "svid"  # a folder


class AgentMesh:
    """The processes around one agent program."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        names = run_settings.ports(plan.services)
        ports = {**dict(zip(names, free_ports(len(names)), strict=True)), "agent": plan.agent_port}
        fixed = {"front-out": plan.port, **{f"{name}-out": port for name, port in plan.outbound_ports.items()}}
        ports |= {name: port for name, port in fixed.items() if port is not None}
        self._places = Places(directory=directory, ports=ports)
        self._plan = plan
        self._command = plan.command
        self._user = plan.user
        self._services = plan.everything
        self._nameless = [name for name, one in self._services.items() if one.protocol == "mcp" and not one.operations]
        self._sidecars = ("front", *self._services)
        self._processes = Processes(directory)
        self._tail = Tail([directory / f"{name}.records" for name in (*self._sidecars, "sts")])
        self._settings: dict[str, Settings] = {}
        self._reloads_before: dict[str, int] = {}  # number of reloads before a sidecar's settings were last written
        self._started = False
        self._told_to_stop: signal.Signals | None = None

    def run(self) -> int:
        """Start the mesh, follow it, stop it in order. Returns the command's exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            self._start_mesh()
            list(self._tail.new())  # skip refusals from before the processes had identities
            self._start_agent()
            self._follow()
            return self._stop()
        finally:
            self._processes.stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = signal.Signals(number)

    # --- start

    def _start_mesh(self) -> None:
        places, processes = self._places, self._processes
        say(f"bringing up {len(self._sidecars)} sidecars, a token service, a Workload API and a user issuer …")
        self._write_settings()
        write(self._file("entries.yaml"), {"entries": []})
        options = ["--socket", str(places.socket), "--entries", str(self._file("entries.yaml"))]
        processes.start_sidecar("workload-api", "dev", "workload-api", *options, "--trust-domain", TRUST_DOMAIN)
        options = ["--listen", places.at("login"), "--user", self._user, "--client", CLIENT_ID, "--life", str(_LIFE_S)]
        processes.start_sidecar("login", "dev", "user-issuer", *options)
        self._wait_for("workload-api", places.socket.exists)
        pids = {"sts": processes.start_sidecar("sts", "sts", "--config", str(self._file("sts.yaml")))}
        for name in self._sidecars:
            pids[name] = processes.start_sidecar(name, "run", "--config", str(self._file(f"{name}.yaml")))
        if self._plan.agent.may_call:
            options = ["--socket", str(places.socket), "--out", str(self._file(_SVID))]
            pids["shell"] = processes.start_sidecar("shell", "dev", "svid", *options)
        write(self._file("entries.yaml"), run_settings.entries(pids))
        if "shell" in pids:
            processes.wait_for_end("shell")
            del pids["shell"]  # another process may get its number
            write(self._file("entries.yaml"), run_settings.entries(pids))
        for name in ("sts", *self._sidecars):
            url = f"http://{places.at(f'{name}-probe')}/readyz"
            self._wait_for(name, lambda url=url: answers(url))  # type: ignore[misc]

    def _write_settings(self) -> None:
        """Write changed settings files; sidecars reload theirs by themselves."""
        services = dict(self._services)
        for name, settings in run_settings.files(self._places, services.pop("agent"), services).items():
            if self._settings.get(name) != settings:
                if name in self._settings:
                    self._reloads_before[name] = self._reloads(name)
                self._settings[name] = settings
                write(self._file(f"{name}.yaml"), settings)

    def _reloads(self, name: str) -> int:
        """Count a sidecar's reloads, accepted or refused."""
        records = self._file(f"{name}.records")
        return records.read_bytes().count(b'"event":"config.') if records.exists() else 0

    def _are_reloading(self) -> bool:
        """Return True if a running sidecar has not yet reloaded its changed settings."""
        before = self._reloads_before
        self._reloads_before = {name: number for name, number in before.items() if self._reloads(name) == number}
        return bool(self._reloads_before)

    def _wait_for(self, name: str, is_there: Callable[[], bool]) -> None:
        """Wait as ``Processes.wait_for`` does, or until a stop signal."""
        self._processes.wait_for(name, lambda: self._told_to_stop is not None or is_there())

    def _start_agent(self) -> None:
        if self._told_to_stop is not None:
            return
        places = self._places
        surroundings = {
            "PORT": str(places.ports["agent"]),
            "SIDECAR_OUTBOUND_URL": f"http://{places.at('agent-out')}",
            "SIDECAR_AGENT_URL": self._url,
        }
        try:
            stdout = sys.stderr if self._prints else None  # stdout is for the settings alone
            self._processes.start(_COMMAND, self._command, surroundings, logged=False, stdout=stdout)
        except OSError as error:
            wrong = f"cannot be started: {error.strerror}"
            raise ConfigError([Problem(self._command[0], wrong, "write the program after --")]) from error
        self._started = True
        told = " ".join(f"{name}={value}" for name, value in surroundings.items())
        say(f"started {shlex.join(self._command)} with {told}")
        for caller, one in self._plan.everything.items():
            own = f"http://{places.at(f'{caller}-out')}"
            if one.may_call and caller != "agent":
                say(f"{caller} calls others at SIDECAR_OUTBOUND_URL={own}")
            for name in one.may_call:
                service = self._plan.services[name]
                where = printed_calls.address(name, service, own)
                who = "it" if caller == "agent" else caller
                say(f"{who} may call {where}, which is {service.origin} behind a sidecar")

    def _show_call(self) -> None:
        header = self._file(self._user)
        write_whole(header, f"Authorization: Bearer {self._log_in()}\n".encode(), private=True)
        agent = self._plan.agent
        for line in printed_calls.by_the_user(agent, self._user, header, self._url):
            say(line)
        for name in agent.may_call[:1]:
            self._show_impersonation(name)
        if agent.protocol != "grpc":
            for line in card_check.warnings(self._places.ports["agent"], self._url, rewritten=agent.protocol == "a2a"):
                say(line)
        if problem := curl_problem(HEADER_FILE_SINCE):
            say(f"that line needs curl {version_text(HEADER_FILE_SINCE)} or newer: {problem}")

    @property
    def _url(self) -> str:
        """The address for the agent's callers, to be written into an agent card."""
        return f"http://{self._places.at('front-out')}/agent{self._plan.agent.path}"

    def _show_impersonation(self, name: str) -> None:
        """Print a refused call: an agent passes the user's token along, with its own SVID."""
        header, svid, port = self._file(f"{self._user}-for-{name}"), self._file(_SVID), self._places.ports[f"{name}-in"]
        token = self._log_in(scope=f"{name}.call", audience=run_settings.tool_id(name))
        write_whole(header, f"Authorization: Bearer {token}\n".encode(), private=True)
        options = ["--cert", f"{svid}/svid.pem", "--key", f"{svid}/svid_key.pem", "--cacert", f"{svid}/bundle.pem"]
        options += ["--connect-to", f"{name}.internal::127.0.0.1:{port}", "-H", f"@{header}"]
        service = self._plan.services[name]
        say(f"an agent that passes {self._user}'s own token on to {name} impersonates {self._user}, and is refused:")
        say(
            f"  curl {shlex.join(options)} {printed_calls.question(service)}https://{name}.internal:{port}{printed_calls.path(service)}"
        )

    def _log_in(self, **wanted: str) -> str:
        form = {
            "grant_type": "password",
            "username": self._user,
            "client_id": CLIENT_ID,
            "scope": LOGIN_SCOPE,
            **wanted,
        }
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self._places.login}/token", urllib.parse.urlencode(form).encode(), timeout=10) as response:
            return str(json.load(response)["access_token"])

    # --- while it runs

    def _follow(self) -> None:
        """Print records until the command ends or a stop signal."""
        port = self._places.ports["agent"]
        shown = False
        hint_at = time.monotonic() + _HINT_S
        while self._started and self._told_to_stop is None and self._processes.exit_code(_COMMAND) is None:
            self._name_tools()
            if (
                not shown and listens(port) and not self._are_reloading()
            ):  # after the reload, so that the first call has a name
                shown = True
                self._show_call()
            if time.monotonic() > hint_at:
                hint_at = float("inf")
                self._say_what_is_down()
            self._processes.require_running("workload-api", "login", "sts", *self._sidecars)
            self._say_records()
            time.sleep(_LOOK_S)

    def _say_what_is_down(self) -> None:
        if not _is_up(self._plan.agent):
            say(f"nothing listens on 127.0.0.1:{self._plan.agent_port} yet: the agent should, PORT says so")
        for name, service in self._plan.services.items():
            if not _is_up(service):
                say(f"nothing listens at {service.origin} yet: start {name} there; calls get 503 upstream_unreachable")

    def _name_tools(self) -> None:
        """Ask MCP servers that listen for their tools, so that settings and records can name them."""
        for name in [one for one in self._nameless if _is_up(self._services[one])]:
            self._nameless.remove(name)
            service = self._services[name]
            tools = list_tools(service.origin + service.path)
            if tools is None:
                say(f"{name} does not tell its tools: name them by --allow {name}=tools/call:NAME")
                continue
            operations = (*protocol_settings("mcp").every_operation(), *calls(tools))
            self._services[name] = replace(service, operations=operations)
            say(f"{name} has the tools {', '.join(tools)}")
            self._write_settings()

    def _say_records(self) -> None:
        for line in self._tail.new():
            say(line)

    # --- the end

    def _stop(self) -> int:
        """Stop in order: the entry (no new calls), the agent's sidecar (it drains), the agent, the rest."""
        processes = self._processes
        processes.stop("front")
        processes.stop("agent")
        processes.stop(_COMMAND, number=self._told_to_stop or signal.SIGTERM)
        processes.stop()
        self._say_records()
        self._leave_files()
        code = processes.exit_code(_COMMAND) if self._started else -(self._told_to_stop or signal.SIGTERM)
        if code is None:  # cannot happen: a process that does not end is killed
            code = -signal.SIGKILL
        return code if code >= 0 else 128 - code

    @property
    def _prints(self) -> bool:
        """True if settings go to stdout."""
        return self._plan.print_settings and self._plan.keep is None

    def _leave_files(self) -> None:
        """Write the records, and settings if requested, to the requested folder; without one, print the settings."""
        texts = self._texts() if self._plan.print_settings else {}
        if self._prints:
            if len(texts) > 1:
                say(f"{len(texts)} documents follow, one for each sidecar; --keep DIR writes a file for each")
            sys.stdout.write("---\n".join(texts.values()))
            sys.stdout.flush()
        folder = self._plan.keep
        if folder is None:
            return
        folder.mkdir(mode=0o700, parents=True)
        for name in (*self._sidecars, "sts"):
            if self._file(f"{name}.records").exists():
                shutil.copyfile(self._file(f"{name}.records"), folder / f"{name}.records")
        for name, text in texts.items():
            file = folder / f"{name}.yaml"
            file.write_text(text)
            say(f"the settings of {name} are in {file}: read them, then sidecar check {file}")
        say(f"the records of the run are in {folder}: sidecar audit chains {folder}")

    def _texts(self) -> dict[str, str]:
        """Return settings for production, of the agent's sidecar and of its services', by name."""
        files = {name: self._file(f"{name}.records") for name in self._services}
        refused = refusals_in(files.values())
        return {name: text_of(name, self._settings[name], seen_in(file, refused)) for name, file in files.items()}

    def _file(self, name: str) -> Path:
        return self._places.directory / name


def _is_up(service: Service) -> bool:
    parts = urllib.parse.urlsplit(service.origin)
    return listens(parts.port or 80, parts.hostname or "")


def say(line: str) -> None:
    """Print a line on stderr: stdout belongs to the agent."""
    sys.stderr.write(f"sidecar: {line}\n")
    sys.stderr.flush()
