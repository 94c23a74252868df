"""The scenes of the demo: one lawful request over three hops, then four attacks, each beside its lawful twin.

Every attack uses only what an attacker could have: curl, openssl, SVIDs of the mesh, tokens that were stolen. The twin
is the same command with one fact changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sidecar.dev.curl import Answer, Shell, as_workload
from sidecar.dev.mesh import Mesh
from sidecar.dev.mesh_settings import CLIENT_ID, CRM, FRONT, LOGIN_SCOPE, PLANNER, WRITER

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_QUESTION: Final = {"question": "When does Globex renew?", "customer": "42"}
_SVID_EXTENSIONS: Final = (
    "subjectAltName=critical,URI:{id}\nbasicConstraints=critical,CA:FALSE\n"
    "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth"
)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried: the ``commands``, what was ``expected``, what was ``said``, and whether it ``held``."""

    title: str
    commands: Sequence[str]
    expected: str
    said: str
    held: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Checks that belong together, and the records they left."""

    title: str
    story: str
    checks: Sequence[Check]
    records: Sequence[Record] = field(default=())


@dataclass(frozen=True, slots=True)
class Loot:
    """The tokens of the lawful request, as header lines in files: what an attacker may have got hold of."""

    login: str
    login_for_crm: str
    hop2: str
    hop3: str


class Demo:
    """Plays the scenes on a running mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._places = mesh.places
        self._shell = Shell(mesh.places.directory)

    def play(self) -> Iterator[Scene]:
        """The scenes in order; each is played when it is asked for."""
        yield self._three_hops()
        loot = self._loot()
        yield self._without_act(loot)
        yield self._stolen_token(loot)
        yield self._asking_for_more(loot)
        yield self._forged_identity(loot)

    def try_yourself(self) -> Sequence[str]:
        """Commands that work while the mesh is kept."""
        places = self._places
        login = f"grant_type=password&username=alice&client_id={CLIENT_ID}&scope={LOGIN_SCOPE}"
        pick = r"""sed 's/.*"access_token": *"\([^"]*\)".*/\1/'"""
        return (
            f"cd {places.directory}",
            f"LOGIN=$(curl -s {places.login}/token -d '{login}' | {pick})",
            f"curl -s http://{places.at('front')}/ask -H \"Authorization: Bearer $LOGIN\" -d '{json.dumps(_QUESTION)}'",
            f"curl -s http://{places.at('crm-probe')}/metrics | grep ^sidecar_requests_total",
            "tail -f writer.records",
        )

    def _three_hops(self) -> Scene:
        login = self._log_in(None)
        answer = self._shell.curl(
            f"http://{self._places.at('front')}/ask",
            "--header",
            f"@{self._shell.write('login.header', f'Authorization: Bearer {login}')}",
            "--json",
            json.dumps(_QUESTION),
        )
        hops = [self._record(name, lambda r: r["direction"] == "inbound") for name in ("planner", "writer", "crm")]
        scopes = [set(hop["scope"] or ()) for hop in hops]
        chains = [hop["chain"] for hop in hops]
        return Scene(
            "alice asks, three agents work",
            "The front app, the planner and the writer act for alice, one after the other, each hop over SPIFFE mTLS "
            "with a token of its own.",
            (
                _check("alice gets her answer", answer, 200),
                _fact("three hops, three tokens", len({hop["jti_in"] for hop in hops}) == 3, "three different jti"),
                _fact(
                    "the chain grows by one actor a hop",
                    chains == [[FRONT], [PLANNER, FRONT], [WRITER, PLANNER, FRONT]],
                    "writer, for alice, via planner, via front",
                ),
                _fact(
                    "each token is narrower",
                    scopes[0] > scopes[1] > scopes[2],
                    " > ".join(str(len(scope)) for scope in scopes) + " scopes",
                ),
                _fact("one subject, one transaction", len({(h["subject"], h["txn"]) for h in hops}) == 1, "alice"),
            ),
            hops,
        )

    def _without_act(self, loot: Loot) -> Scene:
        return Scene(
            "impersonation: a token without an actor",
            "alice's own token for the CRM, from her login issuer, presented by the writer. It is genuine, unexpired "
            "and for the CRM, but it names nobody who acts. The twin is the token that the exchange gave for this hop.",
            (
                _check("alice's token, no act", self._call_crm("writer", loot.login_for_crm), 401, "act_missing"),
                _check("the same call, delegated", self._call_crm("writer", loot.hop3), 200),
            ),
            (self._record("crm", lambda r: r["reason"] == "act_missing"),),
        )

    def _stolen_token(self, loot: Loot) -> Scene:
        return Scene(
            "theft: a real token in other hands",
            "The planner's token for the writer, presented by another workload of the same trust domain with a valid "
            "SVID of its own. The twin is the planner itself.",
            (
                _check("stolen token, own SVID", self._call_writer("intruder", loot.hop2), 403, "actor_mismatch"),
                _check("the same token, its own actor", self._call_writer("planner", loot.hop2), 200),
            ),
            (self._record("writer", lambda r: r["reason"] == "actor_mismatch"),),
        )

    def _asking_for_more(self, loot: Loot) -> Scene:
        return Scene(
            "greed: asking for more than was given",
            "The writer was given crm.read. It calls the export, and it asks the token service for crm.export.",
            (
                _check("export with crm.read", self._export(loot.hop3), 403, "insufficient_scope"),
                _check("what crm.read is for", self._call_crm("writer", loot.hop3), 200),
                _check("exchange for crm.export", self._exchange(loot.hop2, "crm.export"), 400, "scope_refused"),
                _check("exchange for crm.read", self._exchange(loot.hop2, "crm.read"), 200),
            ),
            (self._record("crm", lambda r: r["reason"] == "insufficient_scope"),),
        )

    def _forged_identity(self, loot: Loot) -> Scene:
        forged, forging = self._mint("partner.example")
        lawful, minting = self._mint("acme.example")
        refused = self._call_crm_with(forged, loot.hop3)
        accepted = self._call_crm_with(lawful, loot.hop3)
        return Scene(
            "forgery: a partner's CA mints one of our names",
            "The CRM trusts partner.example for partner.example's workloads. Its CA signs a certificate that says "
            f"{WRITER}. The twin is the same certificate, signed by acme.example.",
            (
                _check("minted by partner.example", refused, 0, commands=[*forging, refused.command]),
                _check("minted by acme.example", accepted, 200, commands=[*minting, accepted.command]),
            ),
            (self._record("crm", lambda r: r["event"] == "connection.refused"),),
        )

    # --- calls

    def _log_in(self, audience: str | None) -> str:
        form = f"grant_type=password&username=alice&client_id={CLIENT_ID}&scope="
        form += LOGIN_SCOPE if audience is None else f"crm.read&audience={audience}"
        answer = self._shell.curl(f"{self._places.login}/token", "--data", form)
        return str(answer.body["access_token"])

    def _call_crm(self, workload: str, header: str) -> Answer:
        return self._mesh_call("crm", "/customers/42", *as_workload(workload), "--header", f"@{header}")

    def _call_crm_with(self, svid: Sequence[str], header: str) -> Answer:
        return self._mesh_call("crm", "/customers/42", *svid, "--header", f"@{header}")

    def _call_writer(self, workload: str, header: str) -> Answer:
        body = ("--json", json.dumps({"customer": "42"}))
        return self._mesh_call("writer", "/draft", *as_workload(workload), "--header", f"@{header}", *body)

    def _export(self, header: str) -> Answer:
        method = ("--request", "POST")
        return self._mesh_call("crm", "/export", *as_workload("writer"), "--header", f"@{header}", *method)

    def _exchange(self, header: str, scope: str) -> Answer:
        """The writer at the token service, with the token it was called with and its own JWT-SVID."""
        stolen = (self._places.directory / header).read_text().removeprefix("Authorization: Bearer ").strip()
        form = {
            "grant_type": _EXCHANGE,
            "subject_token_type": _ACCESS_TOKEN,
            "actor_token_type": _JWT,
            "audience": CRM,
            "scope": scope,
        }
        data = [word for name, value in form.items() for word in ("--data-urlencode", f"{name}={value}")]
        return self._shell.curl(
            f"https://sts.internal:{self._places.ports['sts']}/token",
            "--connect-to",
            f"sts.internal::127.0.0.1:{self._places.ports['sts']}",
            *as_workload("writer"),
            *data,
            "--data-urlencode",
            f"subject_token@{self._shell.write('subject.token', stolen)}",
            "--data-urlencode",
            "actor_token@svids/writer/jwt_svid.token",
        )

    def _mesh_call(self, name: str, path: str, *arguments: str) -> Answer:
        port = self._places.ports[f"{name}-in"]
        to = ("--connect-to", f"{name}.internal::127.0.0.1:{port}")
        return self._shell.curl(f"https://{name}.internal:{port}{path}", *to, *arguments)

    def _mint(self, trust_domain: str) -> tuple[Sequence[str], list[str]]:
        """A certificate that says it is the writer, signed by a trust domain's CA; curl's options, the commands."""
        stem = f"forged-by-{trust_domain.split('.', maxsplit=1)[0]}"
        extensions = self._shell.write(f"{stem}.ext", _SVID_EXTENSIONS.format(id=WRITER))
        authority = f"authorities/{trust_domain}"
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{stem}.key")
        signing = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-days", "1", "-extfile", extensions)
        commands = [
            self._shell.openssl("req", "-new", *key, "-subj", "/O=SPIRE", "-out", f"{stem}.csr"),
            self._shell.openssl("x509", "-req", "-in", f"{stem}.csr", *signing, "-out", f"{stem}.pem"),
        ]
        own = ("--cert", f"{stem}.pem", "--key", f"{stem}.key", "--cacert", "svids/writer/bundle.pem")
        return own, commands

    # --- what was left behind

    def _loot(self) -> Loot:
        def keep(name: str, token: str) -> str:
            return self._shell.write(f"{name}.header", f"Authorization: Bearer {token}")

        return Loot(
            login="login.header",
            login_for_crm=keep("login-for-crm", self._log_in(CRM)),
            hop2=keep("hop2", self._token_seen_by("writer")),
            hop3=keep("hop3", self._token_seen_by("crm")),
        )

    def _token_seen_by(self, name: str) -> str:
        headers = json.loads(self._mesh.seen(name).read_text())["headers"]
        return str(headers["delegation-token"])

    def _record(self, name: str, wanted: Callable[[Record], bool]) -> Record:
        return last_record(self._mesh.records(name), wanted)


def last_record(path: Path, wanted: Callable[[Record], bool], *, patience_s: float = 2.0) -> Record:
    """The newest record of a file that is ``wanted``; waits a little for the writer's flush. Empty if there is none."""
    deadline = time.monotonic() + patience_s
    while True:
        found = [record for record in map(json.loads, path.read_text().splitlines()) if wanted(record)]
        if found or time.monotonic() > deadline:
            return dict(found[-1]) if found else {}
        time.sleep(0.02)


def _check(
    title: str,
    answer: Answer,
    status: int,
    reason: str | None = None,
    *,
    commands: Sequence[str] | None = None,
) -> Check:
    expected = " ".join(str(part) for part in (status or "no handshake", reason) if part)
    held = answer.status == status and answer.reason == reason
    return Check(title, commands or (answer.command,), expected, answer.said, held)


def _fact(title: str, held: bool, text: str) -> Check:  # noqa: FBT001 - the one thing it is about
    return Check(title, (), text, text if held else "not so", held)
