"""Sample data: the files of a small made-up company, with findings for every audit.

All keys are random and open nothing. The key that countersigns the records is generated as well: its public half is
written, its private half discarded.
"""

from __future__ import annotations

import json
import secrets
import string
from base64 import urlsafe_b64encode
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from delegation_core.checkpoint import Head, countersign
from delegation_core.records.hash_chain import HashChain, line_hash
from delegation_core.records.record import FIELDS
from delegation_core.records.record_text import encode

_TD: Final = "spiffe://acme.example"
_STS: Final = "https://sts.acme.example"
_LETTERS: Final = string.ascii_letters + string.digits
_SCOPES: Final = {"planner": ["crm.read", "docs.write"], "writer": ["crm.read", "docs.write"], "crm": ["crm.read"]}
_HOPS: Final = (("front", "planner"), ("planner", "writer"), ("writer", "crm"))


def write_sample(folder: Path) -> None:
    """Write the sample into an empty folder. Raises OSError."""
    for name, text in _files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _files() -> dict[str, str]:
    return {
        "agents.txt": _AGENTS,
        "logs/support-bot.log": _support_log(),
        "logs/gateway.json.log": _gateway_log(),
        "manifests/support-bot.yaml": _manifest(),
        "mcp.json": _mcp(),
        "entries.json": json.dumps({"entries": _entries()}, indent=1),
        "users.csv": "sub,email,active\n" + "".join(f"{name},{name}@acme.example,true\n" for name in _USERS),
        **_records(),
    }


_USERS: Final = ("alice", "bob", "carol")
_AGENTS: Final = """\
# One agent per line, with all its identifiers.
spiffe://acme.example/agent/front
spiffe://acme.example/agent/planner
spiffe://acme.example/agent/writer
support-bot/2.1
"""


def _support_log() -> str:
    """Return an access log in nginx's default format, which names the user, and the agent only by its User-Agent."""
    lines = (
        f"10.0.7.{number % 3 + 1} - {_USERS[number % 3]} [24/Nov/2026:21:{number % 60:02}:10 +0000]"
        f' "GET /customers/{number} HTTP/1.1" 200 512 "-" "support-bot/2.1"'
        for number in range(24)
    )
    return "\n".join(lines) + "\n"


def _gateway_log() -> str:
    """Return a log whose lines hold the claims of a verified token: they name the agent beside the user."""
    return "".join(
        json.dumps(
            {
                "time": f"2026-11-24T21:{number:02}:00Z",
                "method": "POST",
                "path": "/draft",
                "status": 200,
                "sub": _USERS[number % 3],
                "act": {"sub": f"{_TD}/agent/planner"},
                "peer": f"{_TD}/agent/planner",
            }
        )
        + "\n"
        for number in range(12)
    )


def _manifest() -> str:
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: support-bot, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: support-bot}}}}
  template:
    metadata: {{labels: {{app: support-bot}}}}
    spec:
      containers:
        - name: bot
          image: registry.acme.example/support-bot:2.1
          env:
            - name: OPENAI_API_KEY
              value: {_openai_key()}
            - name: DATABASE_URL
              value: postgresql://bot:{_random(20)}@db.shop:5432/crm
"""


def _mcp() -> str:
    server = {"command": "npx", "args": ["crm-mcp"], "env": {"GITHUB_PERSONAL_ACCESS_TOKEN": f"ghp_{_random(36)}"}}
    return json.dumps({"mcpServers": {"crm": server}}, indent=2) + "\n"


def _openai_key() -> str:
    return f"sk-proj-{_random(74)}T3BlbkFJ{_random(74)}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def _entries() -> list[dict[str, Any]]:
    def entry(number: int, path: str, selectors: list[str], **changes: Any) -> dict[str, Any]:
        return {
            "id": f"5f0c-{number}",
            "spiffe_id": {"trust_domain": "acme.example", "path": path},
            "parent_id": {"trust_domain": "acme.example", "path": "/spire/agent/k8s_psat/prod/node-1"},
            "selectors": [dict(zip(("type", "value"), one.split(":", 1), strict=True)) for one in selectors],
            "x509_svid_ttl": 3600,
            "jwt_svid_ttl": 300,
            **changes,
        }

    image = "k8s:container-image:registry.acme.example/sidecar@sha256:" + "5a" * 32
    return [
        entry(1, "/agent/planner", ["k8s:ns:agents", "k8s:sa:planner", image]),
        entry(2, "/agent/writer", ["k8s:ns:agents", "k8s:sa:writer", image]),
        entry(3, "/agent/support-bot", ["k8s:ns:shop"], x509_svid_ttl=2_592_000),
        entry(4, "/agent/cron", ["unix:uid:0", "unix:path:/usr/bin/python3"], admin=True),
    ]


class _Stream:
    """The record stream of one sidecar or token service."""

    def __init__(self, workload: str) -> None:
        self.workload = workload
        self.lines = b""
        self.run = secrets.token_hex(8)
        self._chain = HashChain(encode)
        self._seq = 0

    def write(self, event: str, at: str, **fields: Any) -> None:
        self._seq += 1
        record = {**dict.fromkeys(FIELDS), "event": event, "ts": at, "run": self.run, "seq": self._seq}
        self.lines += self._chain([{**record, "workload": self.workload, **fields}])

    @property
    def head(self) -> Head:
        """Head of the stream, for countersigning: run, number and hash of the newest line."""
        return Head(run=self.run, seq=self._seq, hash=line_hash(self.lines.splitlines()[-1]))


class _TokenService:
    """Token service of the sample mesh: signs stream heads, and records each checkpoint."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._key = Ed25519PrivateKey.generate()
        self._kid = secrets.token_hex(8)

    def countersign(self, stream: _Stream, at: str) -> None:
        """Sign the head of a stream; write the checkpoint to that stream and to the token service's own."""
        seconds = int(datetime.fromisoformat(at).timestamp())
        checkpoint = countersign(
            stream.head, issuer=_STS, workload=stream.workload, at=seconds, alg="EdDSA", kid=self._kid,
            sign=self._key.sign,
        )  # fmt: skip
        if stream is not self._stream:
            stream.write("records.countersigned", at, checkpoint=checkpoint.text())
            told = {"peer": stream.workload, "checkpoint": f"run={stream.run} {checkpoint.text()}"}
            self._stream.write("records.countersigned", at, **told)
        else:
            stream.write("records.countersigned", at, checkpoint=checkpoint.text())

    def jwks(self) -> str:
        """Return the public key as a JWKS document."""
        public = urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        key = {"kty": "OKP", "crv": "Ed25519", "x": public, "kid": self._kid, "alg": "EdDSA", "use": "sig"}
        return json.dumps({"keys": [key]}) + "\n"


def _records() -> dict[str, str]:
    """Return the records of three users' calls through a mesh; the second lost a hop, the third was refused.

    Each stream ends with a countersigned checkpoint.
    """
    names = ("front", "planner", "writer", "crm")
    streams = {name: _Stream(f"{_TD}/{'tool' if name == 'crm' else 'agent'}/{name}") for name in names}
    streams["sts"] = _Stream(f"{_TD}/sts")
    for stream in streams.values():
        stream.write("started", "2026-11-24T21:00:00.000000Z")
    for number, user in enumerate(_USERS):
        _call(streams, number, user)
    service = _TokenService(streams["sts"])
    for stream in streams.values():  # the token service's own comes last, and covers its records of the others
        service.countersign(stream, "2026-11-24T21:03:00.000000Z")
    return {"jwks.json": service.jwks()} | {
        f"records/{name}.jsonl": stream.lines.decode() for name, stream in streams.items()
    }


def _call(streams: dict[str, _Stream], number: int, user: str) -> None:
    """Write the records of every workload for one user's call through the mesh."""
    txn, parent, call_in = f"txn-{number}", None, None
    chain: list[str] = []
    for depth, (caller, callee) in enumerate(_HOPS):
        at = f"2026-11-24T21:{number:02}:{depth * 10:02}"
        actor, target = streams[caller].workload, streams[callee].workload
        chain = [actor, *chain]
        jti, call = f"jti-{number}-{depth}", f"call-{number}-{depth}"
        denied = number == 2 and callee == "crm"
        said = {"decision": "deny", "reason": "insufficient_scope", "status": 403} if denied else {}
        facts = {
            "subject": user, "subject_iss": _STS, "actor": actor, "chain": chain, "chain_depth": len(chain),
            "client_id": actor, "audience": target, "scope": _SCOPES[callee], "parent_jti": parent, "txn": txn,
            "verified": True, "decision": "allow", "reason": "ok", "status": 200,
        }  # fmt: skip
        streams["sts"].write("token.exchanged", f"{at}.100000Z", **facts, peer=actor, jti_in=parent, jti_out=jti)
        request = {**facts, "route": callee, "method": "POST", "path": f"/{callee}", **said}
        if not (number == 1 and callee == "writer"):  # the writer's record of this hop is gone
            streams[callee].write(
                "request", f"{at}.300000Z", **request, direction="inbound", peer=actor, jti_in=jti, call_in=call
            )
        streams[caller].write(
            "request", f"{at}.200000Z", **{**request, "decision": "allow", "reason": "ok"}, direction="outbound",
            peer=target, jti_in=parent, jti_out=jti, call_in=call_in, call_out=call,
        )  # fmt: skip
        parent, call_in = jti, call
