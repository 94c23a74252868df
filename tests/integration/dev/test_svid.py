from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from delegation_core.spiffe_id import TrustDomain
from sidecar.identity import workload_pb as pb
from sidecar_dev.attestation import Peer
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.svid import NoSvidError, fetch
from sidecar_dev.workload_server import DevWorkloadApi
from sidecar_dev.workload_service import Call, PeerService
from tests.dev.test_svid import PLANNER, exit_code

pytestmark = pytest.mark.integration


ACME = TrustDomain("acme.example")


ENTRY = Entry(spiffe_id=PLANNER, selectors=Selectors(pids=frozenset({os.getpid()})))


STS = "https://sts.acme.example"


async def test_the_svid_is_fetched_with_its_key_and_bundle(tmp_path: Path) -> None:
    authority = TrustDomainAuthority(ACME)
    async with DevWorkloadApi(tmp_path / "s", Registry([authority], [ENTRY])) as api:
        fetched = await fetch(api.path, audience=None, timeout_s=5)
    (leaf,) = x509.load_pem_x509_certificates(fetched.chain_pem)
    assert load_pem_private_key(fetched.key_pem, None).public_key() == leaf.public_key()
    assert (fetched.spiffe_id, fetched.jwt_svid, fetched.bundle_pem) == (PLANNER, None, authority.bundle_pem())
    leaf.verify_directly_issued_by(authority.current.certificate)


async def test_a_jwt_svid_is_fetched_for_the_audience_that_is_named(tmp_path: Path) -> None:
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        fetched = await fetch(api.path, audience=STS, timeout_s=5)
    claims = jwt.decode(str(fetched.jwt_svid), options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == (PLANNER, [STS])


async def test_the_wait_ends_when_there_is_an_identity(tmp_path: Path) -> None:
    registry = Registry([TrustDomainAuthority(ACME)])
    api = DevWorkloadApi(tmp_path / "s", registry)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(fetch(api.path, audience=None, timeout_s=5))
        async with api:  # until now there was no socket
            registry.add_entry(ENTRY)
            assert (await waiting).spiffe_id == PLANNER


async def test_a_wait_without_an_identity_ends_with_what_was_said_last(tmp_path: Path) -> None:
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)])) as api:
        with pytest.raises(NoSvidError, match="no identity issued"):
            await fetch(api.path, audience=None, timeout_s=0.3)


GOOD = TrustDomainAuthority(ACME).issue_x509(PLANNER)


CHAIN = GOOD.chain_der[0]


def unusable(**wrong: bytes) -> Any:
    right = {"x509_svid": CHAIN, "x509_svid_key": GOOD.key_der, "bundle": CHAIN}
    return pb.X509SVIDResponse(svids=[pb.X509SVID(spiffe_id=PLANNER, **right | wrong)])


UNUSABLE = {
    "no svid": (pb.X509SVIDResponse(), "no SVID"),
    "no certificate": (unusable(x509_svid=b"x"), "no certificates"),
    "no key": (unusable(x509_svid_key=b"x"), "no private key"),
    "no bundle": (unusable(bundle=CHAIN[:-1]), "no certificates"),
}


@pytest.mark.parametrize(("message", "said"), UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_an_answer_that_cannot_be_used_is_no_identity(tmp_path: Path, message: Any, said: str) -> None:
    class Saying(PeerService):
        async def x509_svid(self, call: Call) -> None:
            await call.recv_message()
            await call.send_message(message)

    class Api(DevWorkloadApi):
        def service(self, peer: Peer | None) -> PeerService:
            return Saying(self.registry, peer)

    async with Api(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        with pytest.raises(NoSvidError, match=said):
            await fetch(api.path, audience=None, timeout_s=0.3)


async def test_the_command_writes_the_files_and_ends_well(tmp_path: Path) -> None:
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        assert await asyncio.to_thread(exit_code, api.path, tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bundle.pem", "svid.pem", "svid_key.pem"]


async def test_the_command_that_cannot_write_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        assert await asyncio.to_thread(exit_code, api.path, tmp_path / "out") == 2
