"""Run inside a pod, by ``python3 -c``, with the image's own modules: what an attacker there tries.

``outsider`` is a pod beside the mesh with nothing; ``agent`` runs in the writer's own container; ``thief`` has the
SVIDs of three sidecars and of a workload of which nobody expects a call. Standard input is a JSON object: the address
of each workload's pod, and what was stolen. A line of JSON for every attempt; beside each stands its lawful twin.
"""

from __future__ import annotations

import json
import ssl
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.dev.attack import Answer, call, showing
from sidecar.dev.certificates import certificate_pem, key_pem
from sidecar.dev.confinement import confinement
from sidecar.dev.pki import TrustDomainAuthority
from sidecar.dev.reach import EVERY, open_ports

STS: Final = "https://mesh-sts.sidecar.svc:7444"
LOGIN: Final = "https://login.login.svc:7300"
WORTH_A_TRY: Final = range(7000, 8100)
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
JSON: Final = {"Content-Type": "application/json"}
PLAN: Final = json.dumps({"question": "When does Globex renew?", "customer": "42"})
FOLDER: Final = Path("/tmp/attack")

Told = dict[str, Any]


def refused(title: str, answer: Answer, status: int, reason: str | None = None) -> Told:
    """It held if the answer has this status (0 is none) and reason."""
    held = answer.status == status and reason in (None, answer.reason)
    return {"title": title, "said": answer.said, "held": held, "reached": []}


def works(title: str, answer: Answer, *reached: str) -> Told:
    """The lawful twin, and which agents it reaches."""
    return {"title": f"(lawful) {title}", "said": answer.said, "held": answer.status == 200, "reached": reached}


def seen(title: str, said: str, *, held: bool) -> Told:
    return {"title": title, "said": said, "held": held, "reached": []}


def spiffe_id(name: str) -> str:
    return f"spiffe://acme.example/agent/{name}"


def log_in(audience: str | None = None) -> str:
    """alice's token from her login issuer: for the front app, or for any API, as many issuers give them."""
    form = {"grant_type": "password", "username": "alice", "password": "", "client_id": "front-app"}
    form |= {"scope": "assistant"} if audience is None else {"scope": "crm.read", "audience": audience}
    return str(json.loads(call(f"{LOGIN}/token", "POST", headers=FORM, body=urlencode(form)).body)["access_token"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- beside the mesh, with nothing


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
    """A certificate with a lawful name by an authority that nobody trusts."""
    issued = TrustDomainAuthority(TrustDomain("acme.example")).issue_x509(SpiffeId(spiffe_id(name)))
    return stolen("forged", {"svid.pem": certificate_pem(issued.leaf), "svid_key.pem": key_pem(issued.key)})


def stolen(name: str, files: Mapping[str, bytes]) -> ssl.SSLContext:
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return showing(folder)


# --- an agent that was taken over, in its own container


def agent(pods: Mapping[str, str]) -> Iterator[Told]:
    yield from (seen(title, said, held=held) for title, said, held in confinement())
    own = call("http://127.0.0.1:8080/")
    yield {**works("the writer's own loopback", own, "writer"), "held": own.status == 404}  # it knows no such path
    for name in ("planner", "crm"):
        for port in (8080, 7080):
            yield refused(f"{name}'s loopback port {port}", call(f"http://{pods[name]}:{port}/customers/42"), 0)
    out = "http://127.0.0.1:7080"
    invented = bearer("A" * 43)
    yield refused("our sidecar with no handle", call(f"{out}/crm/customers/42"), 403, "no_request_context")
    yield refused("an invented handle", call(f"{out}/crm/customers/42", headers=invented), 403, "no_request_context")
    alices = bearer(log_in(spiffe_id("crm")))
    yield refused("alice's own token", call(f"{out}/crm/customers/42", headers=alices), 403, "not_an_entry")
    yield refused("as a proxy", call(out, headers=alices, target="http://crm:7443/customers/42"), 403, "target_denied")
    yield refused("the CRM itself, past our sidecar", call("https://crm:7443/customers/42", headers=alices), 0)


# --- with the SVIDs of three sidecars, and one of its own


class Thief:
    """Whoever holds SVIDs: calls, and exchanges tokens."""

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


def thief(pods: Mapping[str, str], svids: Mapping[str, Mapping[str, str]]) -> Iterator[Told]:
    me = Thief(pods, svids)
    login = log_in()
    chain: list[str] = []
    for who, subject, audience, scope in (
        ("front", login, "planner", "crm.read docs.write plan.make"),
        ("planner", None, "writer", "crm.read docs.write"),
        ("writer", None, "crm", "crm.read"),
    ):
        answer = me.exchange(who, subject or chain[-1], audience, scope)
        yield works(f"{who} exchanges for {audience}", answer)
        chain.append(str(json.loads(answer.body)["access_token"]))
    to_planner, to_writer, to_crm = chain

    yield works("front, for alice, at the planner", me.plan("front", to_planner), "planner", "writer", "crm")
    yield refused("front's SVID and no token", me.plan("front", None), 401, "no_token")
    yield refused("front's token with another SVID", me.plan("intruder", to_planner), 403, "actor_mismatch")
    yield refused("another scope written into it", me.plan("front", widened(to_planner)), 401, "bad_signature")
    yield refused("the writer's token at the planner", me.plan("planner", to_writer), 401, "wrong_audience")

    yield works("the writer, for alice, at the CRM", me.crm("writer", to_crm), "crm")
    alices = log_in(spiffe_id("crm"))
    yield refused("impersonation: alice's own token for the CRM", me.crm("writer", alices), 401, "act_missing")
    yield refused("the CRM's token with another SVID", me.crm("intruder", to_crm), 403, "actor_mismatch")
    yield refused("a path beyond its routes", me.crm("writer", to_crm, "/export"), 404, "no_route")

    yield refused(
        "another exchanges the login token", me.exchange("intruder", login, "planner", "plan.make"), 400, "not_an_entry"
    )
    yield refused(
        "another exchanges front's token",
        me.exchange("intruder", to_planner, "writer", "crm.read"),
        400,
        "not_your_token",
    )
    yield refused("the writer begins a chain", me.exchange("writer", login, "crm", "crm.read"), 400, "not_an_entry")
    yield refused("front asks for the CRM", me.exchange("front", login, "crm", "crm.read"), 400, "target_unknown")
    yield refused(
        "the writer asks for more", me.exchange("writer", to_writer, "crm", "crm.export"), 400, "scope_refused"
    )


def widened(token: str) -> str:
    """The same signature over other claims."""
    header, payload, signature = token.split(".")
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["scope"] += " crm.export"
    return f"{header}.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


def main() -> None:
    given = json.load(sys.stdin)
    attempts = {
        "outsider": lambda: outsider(given["pods"]),
        "agent": lambda: agent(given["pods"]),
        "thief": lambda: thief(given["pods"], given["svids"]),
    }
    for attempt in attempts[sys.argv[1]]():
        sys.stdout.write(json.dumps(attempt) + "\n")


if __name__ == "__main__":
    main()
