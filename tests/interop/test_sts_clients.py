"""Clients of token exchange that we did not write, against our token service: mTLS with an SVID, and a JWT-SVID."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Reason
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT
from delegation_core.spiffe_id import SpiffeId
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.sts import FRONT, Mesh, small_policy
from tests.fakes.sts_server import STS, RunningSts, running_sts
from tests.fakes.tokens import CRM, PLANNER, TRUST_DOMAIN, WRITER
from tests.integration.world import free_port
from tests.interop.sts_clients.programs import PROGRAMS, Program, ask

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]  # the first run builds it


@dataclass(frozen=True)
class Service:
    """Our token service, under the issuer identifier where it is reached, and the files of its clients."""

    sts: RunningSts
    folder: Path
    issuer: str

    def question(self, **changes: object) -> dict[str, object]:
        """Return what makes a client ask for alice's token at the CRM, by the writer; ``changes`` replace parts."""
        mesh = self.sts.mesh
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "client_id": WRITER,
            "peer": STS,
            **self.svid(WRITER),
            "subject_token": mesh.own(iss=self.issuer),
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "actor_token": mesh.svid(WRITER, aud=[self.issuer]),
            "actor_token_type": TOKEN_TYPE_JWT,
            "audience": [CRM],
            "scope": ["crm.read"],
            **changes,
        }

    def svid(self, spiffe_id: SpiffeId, by: TrustDomainAuthority | None = None) -> dict[str, object]:
        """Write an X.509-SVID and the service's bundle as files; return their names."""
        issued = (by or self.sts.authority).issue_x509(spiffe_id)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        contents = {
            "certificate": issued.chain_pem,
            "key": issued.key_pem,
            "bundle": self.sts.authority.bundle_pem(),
        }
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return {name: str(folder / name) for name in contents}


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Service]:
    port = free_port()
    issuer = f"https://127.0.0.1:{port}"
    mesh = Mesh(policy=small_policy(issuer=issuer), start=int(time.time()))
    async with running_sts(mesh, port=port) as sts:
        yield Service(sts, folder, issuer)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as one:
        yield one


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Program:
    found = PROGRAMS[request.param]
    if reason := found.reason_to_skip():
        pytest.skip(reason)
    return found


def last_reason(service: Service) -> object:
    name, fields = service.sts.mesh.log.events[-1]
    assert name.startswith("token.exchange")
    return fields["reason"]


Change = Callable[[Service], dict[str, object]]
REFUSED: Final[dict[str, tuple[Change, str, Reason]]] = {
    "another workload's actor token": (
        lambda service: {"actor_token": service.sts.mesh.svid(PLANNER, aud=[service.issuer])},
        "invalid_request",
        Reason.ACTOR_NOT_CLIENT,
    ),
    "an actor token for another service": (
        lambda service: {"actor_token": service.sts.mesh.svid(WRITER)},
        "invalid_request",
        Reason.ACTOR_TOKEN_INVALID,
    ),
    "no actor token": (lambda _: {"actor_token": "", "actor_token_type": ""}, "invalid_request", Reason.ACTOR_REQUIRED),
    "another workload's subject token": (
        lambda service: {"subject_token": service.sts.mesh.own(iss=service.issuer, aud=PLANNER)},
        "invalid_request",
        Reason.NOT_YOUR_TOKEN,
    ),
    "an unknown audience": (
        lambda _: {"audience": ["spiffe://acme.example/nobody"]},
        "invalid_target",
        Reason.TARGET_UNKNOWN,
    ),
    "a wider scope": (lambda _: {"scope": ["crm.write"]}, "invalid_scope", Reason.SCOPE_REFUSED),
}


async def test_a_foreign_client_gets_a_delegated_token(service: Service, program: Program) -> None:
    told = await ask(program, service.question())
    claims = parse_bearer(told["access_token"]).claims
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("alice", CRM, "crm.read")
    assert claims["act"] == {"sub": WRITER, "act": {"sub": PLANNER, "act": {"sub": FRONT}}}
    assert told["token_type"].lower() == "bearer"


@pytest.mark.parametrize("fact", REFUSED)
async def test_with_one_fact_changed_a_foreign_client_reads_a_refusal(
    service: Service, program: Program, fact: str
) -> None:
    change, error, reason = REFUSED[fact]
    told = await ask(program, service.question(**change(service)))
    assert told == {"error": error}
    assert last_reason(service) == reason


async def test_with_a_strangers_certificate_a_foreign_client_gets_no_answer(service: Service, program: Program) -> None:
    forged = service.svid(WRITER, by=TrustDomainAuthority(TRUST_DOMAIN))
    told = await ask(program, service.question(**forged))
    assert set(told) == {"failed"}
    assert [reason for reason, _ in service.sts.refused] == [Reason.UNTRUSTED_CHAIN]
