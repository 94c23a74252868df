from __future__ import annotations

import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpclib.client import Channel
from grpclib.const import Status

from sidecar.identity import workload_pb as pb
from sidecar_dev.files import write_whole
from tests.dev.calls import first, opened, refusal, stream_of
from tests.dev.commands import ended, line_with, running
from tests.dev.test_workload_api import entries_for

pytestmark = pytest.mark.integration


MODULE = "sidecar_dev.workload_api"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "entries.yaml"
    write_whole(path, entries_for(1))
    return path


@pytest.fixture
async def served(file: Path) -> AsyncIterator[Process]:
    """Run the command, serving this process."""
    write_whole(file, entries_for(os.getpid()))
    options = ["--socket", str(file.parent / "s"), "--authorities", str(file.parent / "authorities")]
    options += ["--bundles", str(file.parent)]
    async with running(MODULE, *options, "--entries", str(file), "--trust-domain", "acme.example") as process:
        await line_with(process, "WARNING: DEVELOPMENT ONLY")
        await line_with(process, "serving acme.example")
        yield process


async def test_the_command_serves_until_it_is_told_to_end(served: Process, file: Path) -> None:
    assert (await first(file.parent / "s", "FetchX509SVID")).svids[0].spiffe_id == "spiffe://acme.example/agent/planner"
    served.send_signal(signal.SIGTERM)
    assert await ended(served) == (0, "")
    assert not (file.parent / "s").exists()


async def test_a_changed_entries_file_reaches_open_streams(served: Process, file: Path) -> None:
    async with Channel(path=str(file.parent / "s")) as channel, stream_of(channel, "FetchX509SVID") as stream:
        await opened(stream, pb.X509SVIDRequest())
        write_whole(file, entries_for(os.getpid(), "agent/writer"))
        message = await stream.recv_message()
        assert message.svids[0].spiffe_id == "spiffe://acme.example/agent/writer"
        await stream.cancel()


async def test_an_identity_taken_out_of_the_file_is_withdrawn(served: Process, file: Path) -> None:
    async def wait_for_withdrawal() -> None:
        async with Channel(path=str(file.parent / "s")) as channel, stream_of(channel, "FetchX509SVID") as stream:
            await opened(stream, pb.X509SVIDRequest())
            write_whole(file, entries_for(None))
            await stream.recv_message()

    assert (await refusal(wait_for_withdrawal()))[0] is Status.PERMISSION_DENIED


async def test_signals_rotate_and_drop_the_authorities_also_those_written_to_files(served: Process, file: Path) -> None:
    def authority() -> x509.Certificate:
        return x509.load_pem_x509_certificate((file.parent / "authorities" / "acme.example.pem").read_bytes())

    def bundled() -> int:
        return (file.parent / "acme.example.pem").read_text().count("BEGIN CERTIFICATE")

    old = authority()
    async with Channel(path=str(file.parent / "s")) as channel, stream_of(channel, "FetchX509SVID") as stream:
        await opened(stream, pb.X509SVIDRequest())
        served.send_signal(signal.SIGUSR1)
        rotated = await stream.recv_message()
        assert len(x509_certificates(rotated)) == bundled() == 2
        served.send_signal(signal.SIGUSR2)
        dropped = await stream.recv_message()
        assert len(x509_certificates(dropped)) == bundled() == 1
        served.send_signal(signal.SIGHUP)  # changes nothing, ends nothing
        served.send_signal(signal.SIGUSR1)
        assert len(x509_certificates(await stream.recv_message())) == 2
        await stream.cancel()
    assert authority() != old
    key_file = file.parent / "authorities" / "acme.example.key"
    key = load_pem_private_key(key_file.read_bytes(), None)
    assert key.public_key() == authority().public_key()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key_file.parent.stat().st_mode & 0o777 == 0o700


def x509_certificates(message: object) -> list[bytes]:
    """Count the bundle's certificates: each begins a DER sequence."""
    bundle: bytes = message.svids[0].bundle  # type: ignore[attr-defined]
    found = []
    while bundle:
        end = 4 + int.from_bytes(bundle[2:4], "big")
        found.append(bundle[:end])
        bundle = bundle[end:]
    return found
