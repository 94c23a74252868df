"""Stage of the demo: a running mesh, the commands for it, and the files that they write."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sidecar_dev.a2a_stand_in import VERSION as A2A_VERSION
from sidecar_dev.a2a_stand_in import message_request
from sidecar_dev.curl import Answer, Shell, as_workload
from sidecar_dev.mcp_stand_in import tool_request
from sidecar_dev.mesh import Mesh
from sidecar_dev.mesh_settings import CLIENT_ID, LOGIN_SCOPE

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_SVID_EXTENSIONS: Final = (
    "subjectAltName=critical,URI:{id}\nbasicConstraints=critical,CA:FALSE\n"
    "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
)
_PATIENCE_S: Final = 5.0
_LOOK_S: Final = 0.02

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One attempt: ``commands``, the ``expected`` outcome, the actual one (``said``); ``held`` if they agree."""

    title: str
    commands: Sequence[str]
    expected: str
    said: str
    held: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Related checks. ``lines`` are printed unchanged, ``records`` shortened, ``hops`` as a table."""

    act: str
    title: str
    story: str
    checks: Sequence[Check]
    records: Sequence[Record] = field(default=())
    hops: Sequence[Record] = field(default=())
    lines: Sequence[str] = field(default=())


def check(
    title: str, answer: Answer, status: int, reason: str | None = None, *, commands: Sequence[str] | None = None
) -> Check:
    """Compare an answer's status and reason code with the expected ones; status 0: the handshake must fail."""
    expected = " ".join(str(part) for part in (status or "no handshake", reason) if part)
    held = answer.status == status and answer.reason == reason
    return Check(title, commands or (answer.command,), expected, answer.said, held)


def fact(title: str, text: str, *, held: bool, commands: Sequence[str] = ()) -> Check:
    """Check of a fact."""
    return Check(title, commands, text, text if held else "not so", held)


class Stage:
    """Commands on a mesh. Paths in them are relative to the mesh's folder."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.places = mesh.places
        self.shell = Shell(mesh.places.directory)
        self.hops: Sequence[Record] = ()  # callees' records of alice's first request
        self._token_files: dict[str, str] = {}

    # --- messages

    def tool_call(self, tool: str, **arguments: str) -> Sequence[str]:
        """Return curl's options for an MCP message that calls a tool. Writes message and header fields to two files."""
        message, fields = tool_request("attacker", tool, arguments)
        lines = self.shell.write(f"{tool}.fields", "".join(f"{name}: {value}\n" for name, value in fields.items()))
        return ("--header", f"@{lines}", "--json", f"@{self.shell.write(f'{tool}.json', json.dumps(message))}")

    def message(self, name: str, text: str, **data: str) -> Sequence[str]:
        """Return curl's options for an A2A message, which is written to a file."""
        body = self.shell.write(f"{name}.json", json.dumps(message_request(text, data)))
        return ("--header", f"A2A-Version: {A2A_VERSION}", "--json", f"@{body}")

    # --- lawful use

    def log_in(self, audience: str | None = None) -> str:
        """Return alice's token from her login issuer, for the front app or for another ``audience``."""
        form = f"grant_type=password&username=alice&client_id={CLIENT_ID}&scope="
        form += LOGIN_SCOPE if audience is None else f"crm.read&audience={audience}"
        return str(self.shell.curl(f"{self.places.login}/token", "--data", form).body["access_token"])

    def header_file(self, name: str, token: str) -> str:
        """Write a token as a header line to a file, so that commands stay short; return the file's name."""
        return self.shell.write(f"{name}.header", f"Authorization: Bearer {token}\n")

    def ask(self, name: str, question: dict[str, Any]) -> Answer:
        """Ask the front app called ``name`` as alice; her token is in login.header."""
        body = ("--json", json.dumps(question))
        return self.shell.curl(f"http://{self.places.at(name)}/ask", "--header", "@login.header", *body)

    def asking(self, name: str, question: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Ask as ``ask`` does, in the background, and discard the answer. Returns the process."""
        command = ["curl", "--silent", "--noproxy", "*", f"http://{self.places.at(name)}/ask"]
        options = ["--header", "@login.header", "--json", json.dumps(question)]
        folder = self.places.directory
        return subprocess.Popen([*command, *options], cwd=folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)  # noqa: S603

    # --- attacks

    def mesh_call(self, name: str, path: str, *arguments: str) -> Answer:
        """Call a workload's sidecar."""
        port = self.places.ports[f"{name}-in"]
        to = ("--connect-to", f"{name}.internal::127.0.0.1:{port}")
        return self.shell.curl(f"https://{name}.internal:{port}{path}", *to, *arguments)

    def call_crm(self, workload: str, header: str, tool: Sequence[str] | None = None) -> Answer:
        """Call a tool of the CRM with a workload's SVID; by default the tool that reads a customer."""
        asked = tool or self.tool_call("read_customer", customer="42")
        return self.mesh_call("crm", "/mcp", *as_workload(workload), "--header", f"@{header}", *asked)

    def local_call(self, name: str, path: str, header: str, *more: str) -> Answer:
        """Call a sidecar's outbound port, as its agent does."""
        url = f"http://{self.places.at(f'{name}-out')}{path}"
        return self.shell.curl(url, "--header", f"@{header}", *more)

    def exchange(self, workload: str, token: str, audience: str, scope: str) -> Answer:
        """Exchange a token at the token service, with a workload's X.509-SVID and JWT-SVID."""
        form = {
            "grant_type": _EXCHANGE,
            "subject_token_type": _ACCESS_TOKEN,
            "actor_token_type": _JWT,
            "audience": audience,
            "scope": scope,
            "subject_token@": self.shell.write(self._token_file(token), token),
            "actor_token@": f"svids/{workload}/jwt_svid.token",
        }
        pairs = (f"{name}{value}" if name.endswith("@") else f"{name}={value}" for name, value in form.items())
        data = [word for pair in pairs for word in ("--data-urlencode", pair)]
        port = self.places.ports["sts"]
        to = ("--connect-to", f"sts.internal::127.0.0.1:{port}")
        return self.shell.curl(f"https://sts.internal:{port}/token", *to, *as_workload(workload), *data)

    def _token_file(self, token: str) -> str:
        """Return the name of the file for this token; each token has its own, so that printed commands keep working."""
        return self._token_files.setdefault(token, f"token-{len(self._token_files) + 1}.token")

    def mint_svid(self, spiffe_id: str, trust_domain: str) -> tuple[Sequence[str], list[str]]:
        """Make a certificate for ``spiffe_id``, signed by the CA of ``trust_domain``.

        Return curl's options, and the commands that made it.
        """
        stem = f"minted-by-{trust_domain.partition('.')[0]}"
        extensions = self.shell.write(f"{stem}.ext", _SVID_EXTENSIONS.format(id=spiffe_id))
        authority = f"authorities/{trust_domain}"
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{stem}.key")
        signing = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-days", "1", "-extfile", extensions)
        commands = [
            self.shell.openssl("req", "-new", *key, "-subj", "/O=SPIRE", "-out", f"{stem}.csr"),
            self.shell.openssl("x509", "-req", "-in", f"{stem}.csr", *signing, "-out", f"{stem}.pem"),
        ]
        own = ("--cert", f"{stem}.pem", "--key", f"{stem}.key", "--cacert", "svids/writer/bundle.pem")
        return own, commands

    # --- records and headers

    def seen(self, name: str) -> dict[str, str]:
        """Return the headers of the last request that an agent received; empty if there is none."""
        try:
            headers: dict[str, str] = json.loads(self.mesh.seen(name).read_text())["headers"]
        except (FileNotFoundError, ValueError):  # no request yet, or the file is being written
            return {}
        return headers

    def next_seen(self, name: str, before: dict[str, str]) -> dict[str, str]:
        """Return the headers of the next request after ``before``; waits for it briefly."""
        headers: dict[str, str] = _patiently(lambda: self.seen(name), lambda found: bool(found) and found != before)
        return headers

    def record(self, name: str, wanted: Callable[[Record], bool]) -> Record:
        """Return a witness's newest record that ``wanted`` accepts; waits for it briefly. Empty if there is none."""

        def newest() -> Record:
            found = [record for record in self.records(name) if wanted(record)]
            return found[-1] if found else {}

        record: Record = _patiently(newest, bool)
        return record

    def records(self, name: str) -> list[Record]:
        """Return all records of a witness, in order."""
        return [json.loads(line) for line in _whole_lines(self.mesh.records(name))]

    def sidecar(self, *arguments: str) -> tuple[str, dict[str, Any]]:
        """Run an offline ``sidecar`` command with ``--json``. Return the command as typed, and its result."""
        ran = [sys.executable, "-m", "sidecar.cli", *arguments, "--json"]
        finished = subprocess.run(ran, cwd=self.places.directory, capture_output=True, check=False)  # noqa: S603
        try:
            answer = json.loads(finished.stdout)
        except ValueError:
            answer = {}
        own = Path(sys.executable).with_name("sidecar")
        program = "sidecar" if shutil.which("sidecar") == str(own) else shlex.quote(str(own))
        return f"{program} {shlex.join(arguments)}", answer


def count(scenes: Iterable[Scene]) -> tuple[int, int]:
    """Count the checks that held, and all of them."""
    checks = [check for scene in scenes for check in scene.checks]
    return sum(check.held for check in checks), len(checks)


def _whole_lines(path: Path) -> Iterable[str]:
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _patiently(look: Callable[[], Any], is_it: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_it(found := look()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found
