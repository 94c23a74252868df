from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb as pb
from sidecar_dev.attestation import Peer
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.svid import Fetched, NoSvidError, add_arguments, fetch, run, write
from sidecar_dev.workload_server import DevWorkloadApi
from sidecar_dev.workload_service import Call, PeerService

ACME = TrustDomain("acme.example")
PLANNER = SpiffeId("spiffe://acme.example/agent/planner")
ENTRY = Entry(spiffe_id=PLANNER, selectors=Selectors(pids=frozenset({os.getpid()})))
STS = "https://sts.acme.example"
FETCHED = Fetched(spiffe_id=PLANNER, chain_pem=b"chain", key_pem=b"key", bundle_pem=b"bundle", jwt_svid="token")


def test_keys_and_tokens_are_written_for_their_owner_only(tmp_path: Path) -> None:
    write(FETCHED, tmp_path / "out")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"svid.pem": 0o644, "svid_key.pem": 0o600, "bundle.pem": 0o644, "jwt_svid.token": 0o600}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "out" / "jwt_svid.token").read_text() == "token"


def test_what_was_fetched_does_not_show_its_secrets() -> None:
    assert "key" not in repr(FETCHED).replace("key_pem", "")
    assert "token" not in repr(FETCHED)


@pytest.mark.integration
async def test_the_svid_is_fetched_with_its_key_and_bundle(tmp_path: Path) -> None:
    authority = TrustDomainAuthority(ACME)
    async with DevWorkloadApi(tmp_path / "s", Registry([authority], [ENTRY])) as api:
        fetched = await fetch(api.path, audience=None, timeout_s=5)
    (leaf,) = x509.load_pem_x509_certificates(fetched.chain_pem)
    assert load_pem_private_key(fetched.key_pem, None).public_key() == leaf.public_key()
    assert (fetched.spiffe_id, fetched.jwt_svid, fetched.bundle_pem) == (PLANNER, None, authority.bundle_pem())
    leaf.verify_directly_issued_by(authority.current.certificate)


@pytest.mark.integration
async def test_a_jwt_svid_is_fetched_for_the_audience_that_is_named(tmp_path: Path) -> None:
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        fetched = await fetch(api.path, audience=STS, timeout_s=5)
    claims = jwt.decode(str(fetched.jwt_svid), options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == (PLANNER, [STS])


@pytest.mark.integration
async def test_the_wait_ends_when_there_is_an_identity(tmp_path: Path) -> None:
    registry = Registry([TrustDomainAuthority(ACME)])
    api = DevWorkloadApi(tmp_path / "s", registry)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(fetch(api.path, audience=None, timeout_s=5))
        async with api:  # until now there was not even a socket
            registry.add_entry(ENTRY)
            assert (await waiting).spiffe_id == PLANNER


@pytest.mark.integration
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


@pytest.mark.integration
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


@pytest.mark.integration
async def test_the_command_writes_the_files_and_ends_well(tmp_path: Path) -> None:
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        assert await asyncio.to_thread(exit_code, api.path, tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bundle.pem", "svid.pem", "svid_key.pem"]


def test_the_command_without_an_identity_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path / "none", tmp_path / "out", "--timeout", "0.05") == 1
    assert "no identity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
async def test_the_command_that_cannot_write_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    async with DevWorkloadApi(tmp_path / "s", Registry([TrustDomainAuthority(ACME)], [ENTRY])) as api:
        assert await asyncio.to_thread(exit_code, api.path, tmp_path / "out") == 2


def exit_code(socket: Path, out: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["--socket", str(socket), "--out", str(out), *options]))
