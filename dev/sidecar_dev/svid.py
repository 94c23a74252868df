"""``sidecar dev svid``: fetch this process's SVID from a Workload API and write it to files, for curl and openssl."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from delegation_core.console.examples import add_examples
from sidecar.identity import workload_pb as pb
from sidecar.identity.der import split_der
from sidecar.identity.workload_client import WorkloadApiClient, WorkloadApiError
from sidecar.identity.workload_settings import WorkloadAddress
from sidecar_dev.certificates import certificate_pem, key_pem
from sidecar_dev.files import write_whole

_RETRY_S: Final = 0.1
_CALL_S: Final = 5.0


class NoSvidError(Exception):
    """The Workload API gave no SVID in time. The message has its last answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The default identity as PEM, its trust domain's bundle, and a JWT-SVID if an audience was named."""

    spiffe_id: str
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    bundle_pem: bytes
    jwt_svid: str | None = field(repr=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(parser, "sidecar dev svid --socket /tmp/mesh/agent.sock --out svids/shell")
    parser.add_argument("--socket", required=True, type=Path, metavar="PATH", help="the Workload API's Unix socket")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="gets svid.pem, svid_key.pem, bundle.pem"
    )
    parser.add_argument("--audience", metavar="NAME", help="also write a JWT-SVID for this audience to jwt_svid.token")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to wait for an identity (default 30)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Fetch and write. Exit codes: 0 written, 1 no identity in time, 2 the directory cannot be written."""
    try:
        fetched = asyncio.run(fetch(arguments.socket, audience=arguments.audience, timeout_s=arguments.timeout))
        write(fetched, arguments.out)
    except NoSvidError as error:
        sys.stderr.write(f"sidecar dev svid: no identity: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"sidecar dev svid: {error.strerror}: {error.filename}\n")
        return 2
    return 0


def write(fetched: Fetched, directory: Path) -> None:
    """Write the files; keys and tokens with mode 0600."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(directory / "svid_key.pem", fetched.key_pem, private=True)
    write_whole(directory / "svid.pem", fetched.chain_pem)
    write_whole(directory / "bundle.pem", fetched.bundle_pem)
    if fetched.jwt_svid is not None:
        write_whole(directory / "jwt_svid.token", fetched.jwt_svid.encode(), private=True)


async def fetch(socket: Path, *, audience: str | None, timeout_s: float) -> Fetched:
    """Ask the Workload API until it returns an identity.

    Raises:
        NoSvidError: the API returned none within ``timeout_s``.
    """
    client = WorkloadApiClient(
        WorkloadAddress(path=str(socket)), first_message_timeout_s=_CALL_S, call_timeout_s=_CALL_S
    )
    last = "no answer"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await _fetch_once(client, audience)
                except WorkloadApiError as error:
                    last = str(error)
                await asyncio.sleep(_RETRY_S)
    except TimeoutError as error:
        raise NoSvidError(last) from error


async def _fetch_once(client: WorkloadApiClient, audience: str | None) -> Fetched:
    svid = _only_first(await _first_message(client))
    jwt_svid = None
    if audience:
        request = pb.JWTSVIDRequest(audience=[audience], spiffe_id=svid.spiffe_id)
        jwt_svid = str(_only_first(await client.call("FetchJWTSVID", request, pb.JWTSVIDResponse)).svid)
    return Fetched(
        spiffe_id=svid.spiffe_id,
        chain_pem=_to_pem(svid.x509_svid),
        key_pem=_to_key_pem(svid.x509_svid_key),
        bundle_pem=_to_pem(svid.bundle),
        jwt_svid=jwt_svid,
    )


async def _first_message(client: WorkloadApiClient) -> Any:
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(message: Any) -> None:
        if not first.done():
            first.set_result(message)

    async with asyncio.TaskGroup() as group:
        stream = group.create_task(client.stream("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse, take))
        await asyncio.wait({first, stream}, return_when=asyncio.FIRST_COMPLETED)
        stream.cancel()
    if not first.done():
        raise stream.result()  # why it ended
    return first.result()


def _only_first(response: Any) -> Any:
    """Return the default identity, the first of a response (Workload API section 5.3)."""
    if not response.svids:
        raise WorkloadApiError("the Workload API answered with no SVID")
    return response.svids[0]


def _to_pem(certificates: bytes) -> bytes:
    try:
        return b"".join(certificate_pem(x509.load_der_x509_certificate(der)) for der in split_der(certificates))
    except ValueError as error:
        raise WorkloadApiError("the Workload API sent no certificates") from error


def _to_key_pem(key: bytes) -> bytes:
    try:
        return key_pem(serialization.load_der_private_key(key, None))
    except (ValueError, TypeError) as error:
        raise WorkloadApiError("the Workload API sent no private key") from error
