"""Attacks from inside a mesh of containers: ``python -m sidecar_dev.attack outsider|agent|thief``.

Each attacker runs in a container of its own, with the access that a real attacker would have there (compose.yaml,
profile ``attack``). Each attempt prints one line. Exit code 0: every attack was refused and every lawful twin worked. A
failed twin counts as a failure, because an attack that fails in a broken mesh proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.certificates import certificate_pem, key_pem
from sidecar_dev.confinement import confinement
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.reach import EVERY, addresses, open_ports
from sidecar_dev.svid import fetch, write

_FRONT: Final = SpiffeId("spiffe://acme.example/agent/front")
_PLANNER: Final = "spiffe://acme.example/agent/planner"
_STS: Final = "https://sts:7444"
_PODS: Final = ("front", "planner", "writer", "crm")
_MEANT_TO_BE_OPEN: Final = frozenset({7443, 7090})
_WORTH_A_TRY: Final = range(7000, 8100)
_TIMEOUT_S: Final = 10.0
_SVID_S: Final = 10.0
_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_PLAN: Final = json.dumps({"question": "When does Globex renew?", "customer": "42"})
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt and its outcome. ``held``: the outcome is the required one."""

    title: str
    said: str
    held: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a request. Status 0: no connection, or no handshake."""

    status: int
    reason: str
    body: bytes = b""

    @property
    def said(self) -> str:
        """The answer, described in a few words."""
        return f"{self.status or 'no answer'} {self.reason}".strip()


def call(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    context: ssl.SSLContext | None = None,
    target: str | None = None,
) -> Answer:
    """Send one request. ``target`` replaces the path, for targets that no URL can express."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    connection = (
        http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        if parts.scheme == "http"
        else http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context or anybody())
    )
    try:
        connection.request(method, target or parts.path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, type(error).__name__)
    finally:
        connection.close()
    return Answer(response.status, response.headers.get("Delegation-Reason") or _error_of(content), content)


def anybody() -> ssl.SSLContext:
    """Return a context that verifies no server and presents no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def showing(folder: Path) -> ssl.SSLContext:
    """Return a context that presents the SVID in a folder."""
    context = anybody()
    context.load_cert_chain(folder / "svid.pem", folder / "svid_key.pem")
    return context


def refused(title: str, answer: Answer, *statuses: int) -> Attempt:
    """Expect one of these statuses; 0 is not an answer."""
    return Attempt(title, answer.said, answer.status in statuses)


def works(title: str, answer: Answer) -> Attempt:
    """Expect success: the lawful twin of an attack."""
    return Attempt(f"(lawful) {title}", answer.said, answer.status == 200)


# --- from beside the mesh: a container on its networks, without credentials


def outsider(folder: Path) -> Iterator[Attempt]:
    """Attacker beside the mesh: calls agents directly by address, and tries every port."""
    first = addresses("planner")[0]
    found = open_ports([first], EVERY)
    yield Attempt("every port of the planner", f"open: {sorted(found)}", found == _MEANT_TO_BE_OPEN)
    for pod in _PODS:
        found = open_ports(addresses(pod), _WORTH_A_TRY)
        wanted = _MEANT_TO_BE_OPEN - {7443} if pod == "front" else _MEANT_TO_BE_OPEN  # nobody calls the entry
        yield Attempt(f"{pod} on each network", f"open: {sorted(found)}", found == wanted)
    yield refused("the planner in the clear", call("http://planner:7443/plan", "POST", body=_PLAN), 0)
    yield refused("the planner without an SVID", call("https://planner:7443/plan", "POST", body=_PLAN), 0)
    forged = showing(_forge(folder / "forged"))
    yield refused("with front's name from a CA of our own", call("https://planner:7443/plan", context=forged), 0)
    yield refused("the token service without an SVID", call(f"{_STS}/token", "POST", body=""), 0)
    for path in ("/status", "/chains", "/plan", "/debug", "/../etc/passwd"):
        yield refused(f"{path} at the planner's probe", call(f"http://planner:7090{path}"), 404)
    metrics = call("http://planner:7090/metrics")
    yield works("metrics, for Prometheus", metrics)
    yield Attempt("metrics tell of no user and no token", "-", not any(w in metrics.body for w in (b"alice", b"eyJ")))


# --- from inside: an agent that was taken over, in its own container


def agent(_folder: Path) -> Iterator[Attempt]:
    """Attacker in the writer's container: its loopback, its networks, its files."""
    yield from (Attempt(title, said, held) for title, said, held in confinement())
    own = call("http://127.0.0.1:8080/")
    yield Attempt("(lawful) the writer's own loopback", own.said, own.status == 404)  # the writer knows no such path
    for pod in ("planner", "crm"):
        for port in (8080, 7080):
            yield refused(f"{pod}'s loopback port {port}", call(f"http://{pod}:{port}/customers/42"), 0)
    out = "http://127.0.0.1:7080"
    login = {"Authorization": f"Bearer {log_in()}"}
    invented = {"Authorization": "Bearer " + "A" * 43}
    yield refused("our sidecar with no handle", call(f"{out}/crm/customers/42"), 401, 403)
    yield refused("with an invented handle", call(f"{out}/crm/customers/42", headers=invented), 401, 403)
    yield refused("with alice's login token", call(f"{out}/crm/customers/42", headers=login), 401, 403)
    yield refused("our sidecar as a proxy", call(out, headers=login, target="http://crm:7443/customers/42"), 401, 403)
    yield refused("as a tunnel", call(out, "CONNECT", target="crm:7443"), 400, 403, 405, 501)
    yield refused("the CRM itself, past our sidecar", call("https://crm:7443/customers/42", headers=login), 0)


# --- with a stolen SVID, front's, and one of the attacker's own


def thief(folder: Path) -> Iterator[Attempt]:
    """Attacker with two SVIDs and alice's login token: claims another identity, or another target."""
    front, intruder = (_svid_of(name, folder) for name in ("front", "intruder"))
    login = log_in()
    answer = _exchange(front, folder / "front", login, _PLANNER, "crm.read docs.write plan.make")
    yield works("front exchanges alice's login token", answer)
    token = str(json.loads(answer.body or b"{}").get("access_token"))
    yield works("front, for alice, at the planner", _plan(front, token))
    yield refused("front's token with another SVID", _plan(intruder, token), 403)
    yield refused("front's SVID and no token", call("https://planner:7443/plan", "POST", context=front), 401)
    yield refused("alice's own token, which names no actor", _plan(front, login), 401)
    yield refused("a token with another scope written in", _plan(front, _widen(token)), 401)
    yield refused("the planner's token at the writer", _call_writer(front, token), 401, 403)
    yield refused("another SVID exchanges the login token", _exchange_for_planner(intruder, folder, login), 400)
    yield refused("another SVID exchanges front's token", _exchange_for_planner(intruder, folder, token), 400)
    beyond = _exchange(front, folder / "front", login, "spiffe://acme.example/tool/crm", "crm.read")
    yield refused("front asks for a token for the CRM", beyond, 400)


def log_in(user: str = "alice") -> str:
    """Log in by name and return the token. Anyone can do so here, so an attacker has a login token too."""
    form = {"grant_type": "password", "username": user, "client_id": "front-app", "scope": "assistant"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = call("https://login:7300/token", "POST", headers=headers, body=urlencode(form))
    return str(json.loads(answer.body or b"{}").get("access_token"))


def _plan(context: ssl.SSLContext, token: str) -> Answer:
    headers = {**_JSON, "Authorization": f"Bearer {token}"}
    return call("https://planner:7443/plan", "POST", headers=headers, body=_PLAN, context=context)


def _call_writer(context: ssl.SSLContext, token: str) -> Answer:
    headers = {**_JSON, "Authorization": f"Bearer {token}"}
    return call("https://writer:7443/draft", "POST", headers=headers, body=_PLAN, context=context)


def _exchange_for_planner(context: ssl.SSLContext, folder: Path, token: str) -> Answer:
    return _exchange(context, folder / "intruder", token, _PLANNER, "plan.make")


def _exchange(context: ssl.SSLContext, svid: Path, token: str, audience: str, scope: str) -> Answer:
    form = {
        "grant_type": _GRANT,
        "subject_token": token,
        "subject_token_type": _ACCESS,
        "actor_token": (svid / "jwt_svid.token").read_text(),
        "actor_token_type": _JWT,
        "audience": audience,
        "scope": scope,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return call(f"{_STS}/token", "POST", headers=headers, body=urlencode(form), context=context)


def _svid_of(name: str, folder: Path) -> ssl.SSLContext:
    fetched = asyncio.run(fetch(Path(f"/run/{name}/api.sock"), audience=_STS, timeout_s=_SVID_S))
    write(fetched, folder / name)
    return showing(folder / name)


def _forge(folder: Path) -> Path:
    """Make a certificate with front's SPIFFE ID, from an untrusted authority; return its folder."""
    forged = TrustDomainAuthority(TrustDomain("acme.example")).issue_x509(_FRONT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "svid.pem").write_bytes(certificate_pem(forged.leaf))
    (folder / "svid_key.pem").write_bytes(key_pem(forged.key))
    return folder


def _widen(token: str) -> str:
    """Return the token with one character of its payload changed, under the old signature."""
    header, payload, signature = token.split(".")
    middle = len(payload) // 2
    return f"{header}.{payload[:middle]}{'A' if payload[middle] != 'A' else 'B'}{payload[middle + 1 :]}.{signature}"


def _error_of(content: bytes) -> str:
    try:
        document: Any = json.loads(content)
    except ValueError:
        return ""
    return str(document.get("error", "")) if isinstance(document, dict) else ""


ATTACKERS: Final[Mapping[str, Callable[[Path], Iterator[Attempt]]]] = {
    "outsider": outsider,
    "agent": agent,
    "thief": thief,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one attacker. Exit codes: 0 every outcome was the required one, 1 not."""
    parser = argparse.ArgumentParser(prog="attack")
    parser.add_argument("attacker", choices=sorted(ATTACKERS))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/attack"), help="for stolen goods")  # noqa: S108
    arguments = parser.parse_args(argv)
    lost = 0
    for attempt in ATTACKERS[arguments.attacker](arguments.folder):
        lost += not attempt.held
        sys.stdout.write(f"{'held' if attempt.held else 'LOST':6}{attempt.title}: {attempt.said}\n")
        sys.stdout.flush()
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
