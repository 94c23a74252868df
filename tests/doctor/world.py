"""The doctor before a fake server, without sockets: a case, its evidence and its cells."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from delegation_core.keyset import parse_jwks
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT
from sidecar.doctor.attempts import Examination
from sidecar.doctor.case import Case, Server
from sidecar.doctor.cells import Cell, Value
from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.messages import Answer, Held, Place, Request, Step, Wait
from sidecar.doctor.probes import examine
from sidecar.doctor.verdicts import verdicts_of
from tests.fakes.foreign_sts import CLIENTS, ISSUER, ForeignSts, Knobs

NOW: Final = 1_790_000_000
ALL: Final = tuple(Value)


def client(name: str) -> TestClient:
    return TestClient(client_id=name, method=Method.BASIC, secret=CLIENTS[name])


class World:
    """A server with knobs, a case for it, and a clock that pauses move."""

    def __init__(self, knobs: Knobs | None = None, *, subject: dict[str, Any] | None = None, **case: Any) -> None:
        self.now: float = NOW
        self.log: list[tuple[Request, Answer]] = []
        self.sts = ForeignSts(knobs, now=lambda: self.now)
        server = Server(
            token=f"{ISSUER}/token",
            issuer=ISSUER,
            introspection=f"{ISSUER}/introspect",
            revocation=f"{ISSUER}/revoke",
            jwks=f"{ISSUER}/jwks",
            supported=case.pop("supported", ()),
        )
        given: dict[str, Any] = {
            "server": server,
            "clients": (client("agent-a"), client("agent-b")),
            "subject": Held(self.sts.user_token(**(subject or {})), "subject", TOKEN_TYPE_ACCESS_TOKEN),
            "scope": "crm.read",
            "wider": ("crm.write",),
            "audiences": ("tool-crm", "tool-mail"),
            "keys": parse_jwks(orjson.dumps(self.sts.jwks())),
            "noise": "n0ise-of-the-doctor",
        }
        self.case = Case(**{**given, **case})

    def answer(self, request: Request) -> Answer:
        """Answer as the server does, whatever the transport."""
        pairs = request.pairs
        if request.place is Place.INTROSPECTION:
            status, members = self.sts.introspect(pairs)
        elif request.place is Place.REVOCATION:
            status, members = self.sts.revoke(pairs)
        else:
            proven = not request.wrong and not request.bare
            jkt = None if request.proof is None else request.proof.thumbprint
            status, members = self.sts.token(pairs, request.client.client_id, proven=proven, jkt=jkt)
        return Answer(status=status, members=members, empty=not members, at=self.now)

    def examine(self) -> Examination:
        """Run the script to its end."""
        script: Generator[Step, Answer, Examination] = examine(self.case)
        answer: Answer | None = None
        while True:
            try:
                step = next(script) if answer is None else script.send(answer)
            except StopIteration as end:
                found: Examination = end.value
                return found
            if isinstance(step, Wait):
                self.now += step.seconds
                answer = Answer(at=self.now)
            else:
                answer = self.answer(step)
                self.log.append((step, answer))

    def cells(self) -> dict[str, Cell]:
        return {cell.id: cell for cell in verdicts_of(self.examine())}


def cells(knobs: Knobs | None = None, **case: Any) -> dict[str, Cell]:
    """Return the cells of a server with these knobs."""
    return World(knobs, **case).cells()


def foreign_jwt() -> Held:
    """Return a JWT of an issuer that the server may or may not know."""
    key = generate_private_key(SECP256R1())
    claims = {"iss": "https://other.example", "sub": "spiffe://acme.example/agent/a", "aud": ISSUER, "exp": NOW + 300}
    return Held(jwt.encode(claims, key, algorithm="ES256"), "foreign JWT", TOKEN_TYPE_JWT)


def without(world: World, **endpoints: Any) -> World:
    """Take endpoints off the server's metadata."""
    world.case = replace(world.case, server=replace(world.case.server, **endpoints))
    return world
