"""Attacks inside a pod, run by ``python3 -c`` with the image's own modules.

``outsider`` is a pod beside the mesh without credentials; ``agent`` runs in the writer's own container; ``thief`` has
the SVIDs of three sidecars and of a workload from which no call is expected; ``forger`` has them and the certificates
of a partner's authority; ``captured`` is the writer with our program as its agent; ``careless`` is the front app with a
token service that does not delegate. The first line of standard input is a JSON object: the address of each workload's
pod, and the stolen files. The output has a line of JSON for every attempt, each beside its lawful twin. An attempt that
needs another container is requested by a line, too (``elsewhere``), and awaited.
"""

from __future__ import annotations

import json
import queue
import ssl
import sys
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.attack import Answer, call, showing
from sidecar_dev.certificates import certificate_pem, key_pem
from sidecar_dev.confinement import confinement
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.reach import EVERY, open_ports

STS: Final = "https://mesh-sts.sidecar.svc:7444"
LOGIN: Final = "https://login.login.svc:7300"
OUT: Final = "http://127.0.0.1:7080"
WORTH_A_TRY: Final = range(7000, 8100)
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
JSON: Final = {"Content-Type": "application/json"}
PLAN: Final = json.dumps({"question": "When does Globex renew?", "customer": "42"})
FOLDER: Final = Path("/tmp/attack")

Told = dict[str, Any]


def refused(title: str, answer: Answer, status: int, reason: str | None = None) -> Told:
    """Describe an attempt that is refused if the answer has this status (0 is none) and reason."""
    held = answer.status == status and reason in (None, answer.reason)
    return {"title": title, "said": answer.said, "held": held, "reached": [], "refusal": [status, reason or ""]}


def works(title: str, answer: Answer, *reached: str) -> Told:
    """Describe the lawful twin, and the agents that it reaches."""
    return {"title": f"(lawful) {title}", "said": answer.said, "held": answer.status == 200, "reached": reached}


def seen(title: str, said: str, *, held: bool) -> Told:
    return {"title": title, "said": said, "held": held, "reached": []}


def elsewhere(workload: str, attempt: str, title: str, **given: Any) -> Told:
    """Request ``attempt`` in the agent's container of another workload."""
    return {"elsewhere": [attempt, workload], "given": {"title": title, **given}}


def spiffe_id(name: str) -> str:
    return f"spiffe://acme.example/ns/agents/sa/{name}"


def log_in(audience: str | None = None) -> str:
    """Return alice's token from her login issuer: for the front app, or for any API, as many issuers give them."""
    form = {"grant_type": "password", "username": "alice", "password": "", "client_id": "front-app"}
    form |= {"scope": "assistant"} if audience is None else {"scope": "crm.read", "audience": audience}
    return str(json.loads(call(f"{LOGIN}/token", "POST", headers=FORM, body=urlencode(form)).body)["access_token"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- beside the mesh, without credentials


def outsider(pods: Mapping[str, str]) -> Iterator[Told]:
    found = open_ports([pods["planner"]], EVERY)
    yield seen("every port of the planner's pod", f"open: {sorted(found)}", held=found == {7443, 7090})
    meant = {"front": {8080, 7090}, "writer": {7443, 7090}, "crm": {7443, 7090}}
    for name, ports in meant.items():
        found = open_ports([pods[name]], WORTH_A_TRY)
        yield seen(f"the ports of {name}'s pod", f"open: {sorted(found)}", held=found == ports)
    planner = f"https://{pods['planner']}:7443/plan"
    yield refused("in the clear", call(planner.replace("https", "http"), "POST", body=PLAN), 0)
    yield refused("without an SVID", call(planner, "POST", body=PLAN), 0)
    yield refused("with front's name, by a CA of our own", call(planner, "POST", context=forged("front")), 0)
    yield refused("the token service without an SVID", call(f"{STS}/token", "POST", body=""), 0)
    for path in ("/status", "/chains", "/plan", "/../etc/passwd"):
        yield refused(f"{path} at the probe port", call(f"http://{pods['planner']}:7090{path}"), 404)
    yield works("metrics there, for Prometheus", call(f"http://{pods['planner']}:7090/metrics"))
    without = refused("alice's question without her", call(f"http://{pods['front']}:8080/ask", "POST", body=PLAN), 403)
    yield {**without, "reached": ["front"]}
    lawful = call(f"http://{pods['front']}:8080/ask", "POST", body=PLAN, headers=bearer(log_in()))
    yield works("alice's question", lawful, "front", "planner", "writer", "crm")


def forged(name: str) -> ssl.SSLContext:
    """Return a certificate with a lawful name by an untrusted authority."""
    issued = TrustDomainAuthority(TrustDomain("acme.example")).issue_x509(SpiffeId(spiffe_id(name)))
    return stolen("forged", {"svid.pem": certificate_pem(issued.leaf), "svid_key.pem": key_pem(issued.key)})


def stolen(name: str, files: Mapping[str, bytes]) -> ssl.SSLContext:
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return showing(folder)


# --- a compromised agent, in its own container


def agent(pods: Mapping[str, str]) -> Iterator[Told]:
    yield from (seen(title, said, held=held) for title, said, held in confinement())
    own = call("http://127.0.0.1:8080/")
    yield {**works("the writer's own loopback", own, "writer"), "held": own.status == 404}  # it does not know this path
    for name in ("planner", "crm"):
        for port in (8080, 7080):
            yield refused(f"{name}'s loopback port {port}", call(f"http://{pods[name]}:{port}/customers/42"), 0)
    invented = bearer("A" * 43)
    yield refused("our sidecar with no handle", call(f"{OUT}/crm/customers/42"), 403, "no_request_context")
    yield refused("an invented handle", call(f"{OUT}/crm/customers/42", headers=invented), 403, "no_request_context")
    alices = bearer(log_in(spiffe_id("crm")))
    yield refused("alice's own token", call(f"{OUT}/crm/customers/42", headers=alices), 403, "not_an_entry")
    yield refused("as a proxy", call(OUT, headers=alices, target="http://crm:7443/customers/42"), 403, "target_denied")
    yield refused("the CRM itself, past our sidecar", call("https://crm:7443/customers/42", headers=alices), 0)


# --- with the SVIDs of three sidecars, and one of its own


class Thief:
    """A holder of SVIDs: makes calls, and exchanges tokens."""

    def __init__(self, pods: Mapping[str, str], svids: Mapping[str, Mapping[str, str]]) -> None:
        self._pods = pods
        self._svids = svids
        self._contexts = {
            name: stolen(name, {file: text.encode() for file, text in files.items()}) for name, files in svids.items()
        }

    def plan(self, who: str, token: str | None) -> Answer:
        headers = {**JSON, **({} if token is None else bearer(token))}
        url = f"https://{self._pods['planner']}:7443/plan"
        return call(url, "POST", headers=headers, body=PLAN, context=self._contexts[who])

    def draft(self, who: str, token: str) -> Answer:
        """Call the sidecar of this pod."""
        headers = {**JSON, **bearer(token)}
        return call("https://127.0.0.1:7443/draft", "POST", headers=headers, body=PLAN, context=self._contexts[who])

    def crm(self, who: str, token: str, path: str = "/customers/42") -> Answer:
        url = f"https://{self._pods['crm']}:7443{path}"
        return call(url, headers=bearer(token), context=self._contexts[who])

    def exchange(self, who: str, token: str, audience: str, scope: str) -> Answer:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "actor_token": self._svids[who]["jwt_svid.token"],
            "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "audience": spiffe_id(audience),
            "scope": scope,
        }
        return call(f"{STS}/token", "POST", headers=FORM, body=urlencode(form), context=self._contexts[who])

    def chain(self, login: str) -> Iterator[tuple[Told, str]]:
        """Return the exchanges of alice's question, each with its token: for the planner, the writer, the CRM."""
        token = login
        for who, audience, scope in (
            ("front", "planner", "crm.read docs.write plan.make"),
            ("planner", "writer", "crm.read docs.write"),
            ("writer", "crm", "crm.read"),
        ):
            answer = self.exchange(who, token, audience, scope)
            token = issued(answer)
            yield works(f"{who} exchanges for {audience}", answer), token


def issued(answer: Answer) -> str:
    return str(json.loads(answer.body)["access_token"])


def thief(pods: Mapping[str, str], svids: Mapping[str, Mapping[str, str]]) -> Iterator[Told]:
    me = Thief(pods, svids)
    login = log_in()
    told, chain = zip(*me.chain(login), strict=True)
    yield from told
    to_planner, to_writer, to_crm = chain

    yield works("front, for alice, at the planner", me.plan("front", to_planner), "planner", "writer", "crm")
    yield refused("front's SVID and no token", me.plan("front", None), 401, "no_token")
    yield refused("front's token with another SVID", me.plan("intruder", to_planner), 403, "actor_mismatch")
    yield refused("another scope written into it", me.plan("front", widened(to_planner)), 401, "bad_signature")
    yield refused("the writer's token at the planner", me.plan("planner", to_writer), 401, "wrong_audience")
    narrow = issued(me.exchange("front", login, "planner", "crm.read"))
    yield refused("a plan with crm.read", me.plan("front", narrow), 403, "insufficient_scope")

    yield works("the writer, for alice, at the CRM", me.crm("writer", to_crm), "crm")
    alices = log_in(spiffe_id("crm"))
    yield refused("alice's own token, which names no actor", me.crm("writer", alices), 401, "act_missing")
    yield refused("a stolen token, by another workload", me.crm("intruder", to_crm), 403, "actor_mismatch")
    yield refused("a path beyond its routes", me.crm("writer", to_crm, "/export"), 404, "no_route")

    stolen_login = me.exchange("intruder", login, "planner", "plan.make")
    yield refused("another exchanges the login token", stolen_login, 400, "not_an_entry")
    to_intruder = me.exchange("intruder", to_planner, "writer", "crm.read")
    yield refused("a stolen token, exchanged", to_intruder, 400, "not_your_token")
    begun = me.exchange("writer", login, "crm", "crm.read")
    yield refused("alice's login token, sent by the writer", begun, 400, "not_an_entry")
    yield refused("front asks for the CRM", me.exchange("front", login, "crm", "crm.read"), 400, "target_unknown")
    wider = me.exchange("writer", to_writer, "crm", "crm.export")
    yield refused("an exchange for more than was granted", wider, 400, "scope_refused")


def forger(pods: Mapping[str, str], svids: Mapping[str, Mapping[str, str]]) -> Iterator[Told]:
    """Attack with a partner's certificates, which sidecars trust for its own names only: the second twin."""
    me = Thief(pods, svids)
    *_, (_, to_crm) = me.chain(log_in())
    yield refused("our name, signed by a partner's CA", me.crm("the writer, by partner.example", to_crm), 0)
    yield works("minted by acme.example", me.crm("the writer, by acme.example", to_crm), "crm")
    own = me.crm("a partner, by partner.example", to_crm)
    yield refused("a partner's own name, with the writer's token", own, 403, "actor_mismatch")


# --- the writer, with our program in its container


class Captured:
    """The agent that receives its sidecar's requests. It answers on demand."""

    def __init__(self) -> None:
        given, free = queue.Queue[dict[str, str]](), threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given.put({name.lower(): value for name, value in self.headers.items()})
                free.wait()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.given, self.let_go = given, free.set
        server = HTTPServer(("127.0.0.1", 8080), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def captured(pods: Mapping[str, str], svids: Mapping[str, Mapping[str, str]]) -> Iterator[Told]:
    me, agent = Thief(pods, svids), Captured()
    _, (_, to_writer), _ = me.chain(log_in())
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(me.draft("planner", to_writer)))
    asking.start()
    headers = agent.given.get(timeout=10)
    tokens = [name for name, value in headers.items() if "eyJ" in value]
    yield seen("tokens among what the writer holds", f"{tokens}", held=not tokens)

    customer = f"{OUT}/crm/customers/42"
    handle = {"Authorization": headers["authorization"]}
    yield works("the handle, while its request is served", call(customer, headers=handle), "crm")
    yield elsewhere("planner", "stranger", "the handle at another sidecar", headers=headers)
    export = call(f"{OUT}/crm-export/export", "POST", headers=handle)
    yield refused("the handle for a call not on its list", export, 403, "call_not_allowed")
    token = me.crm("writer", headers["authorization"].removeprefix("Bearer "))
    yield refused("the handle as a token, with the writer's SVID", token, 401)
    yield works("the handle, still", call(customer, headers=handle), "crm")
    agent.let_go()
    asking.join()
    yield works("the request that it was", answers[0])
    yield refused("the handle after its request", call(customer, headers=handle), 403, "no_request_context")


def stranger(title: str, headers: Mapping[str, str]) -> Iterator[Told]:
    """Call another sidecar, with all the headers of a request to the writer."""
    sent = {name: value for name, value in headers.items() if name not in ("host", "content-length")}
    answer = call(f"{OUT}/writer/draft", "POST", headers=sent, body="{}")
    yield refused(title, answer, 403, "no_request_context")


# --- the front app, with a token service that ignores the actor token


def careless(pods: Mapping[str, str]) -> Iterator[Told]:
    login = log_in()
    answer = call(f"{OUT}/planner/plan", "POST", headers={**JSON, **bearer(login)}, body=PLAN)
    yield refused("a token service that does not delegate", answer, 502, "sts_no_act")
    yield elsewhere("front", "careful", "the same call, the delegating service", login=login)


def careful(title: str, login: str) -> Iterator[Told]:
    answer = call(f"{OUT}/planner/plan", "POST", headers={**JSON, **bearer(login)}, body=PLAN)
    yield works(title, answer, "planner", "writer", "crm")


def widened(token: str) -> str:
    """Return the same signature over other claims."""
    header, payload, signature = token.split(".")
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["scope"] += " crm.export"
    return f"{header}.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


ATTACKERS: Final[Mapping[str, Callable[..., Iterator[Told]]]] = {
    one.__name__: one for one in (outsider, agent, thief, forger, captured, stranger, careless, careful)
}


def main() -> None:
    given = json.loads(sys.stdin.readline())
    for told in ATTACKERS[sys.argv[1]](**given):
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        if "elsewhere" in told:
            sys.stdin.readline()


if __name__ == "__main__":
    main()
