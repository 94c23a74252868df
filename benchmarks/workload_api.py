"""``python -m benchmarks.workload_api``: a SPIFFE Workload API with the authority of a run, for peers without files.

Each process of our user gets the same SPIFFE ID. Serves until SIGTERM; once ready, it also listens on a TCP port.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from delegation_core.spiffe_id import SpiffeId
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import Authority, TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_server import DevWorkloadApi

_LIFE_S = 24 * 3600


async def _serve(arguments: argparse.Namespace) -> None:
    key = load_pem_private_key(arguments.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - for the type only: the benchmark made it
    spiffe_id = SpiffeId(arguments.spiffe_id)
    authority = Authority(
        certificate=x509.load_pem_x509_certificate(arguments.authority.read_bytes()),
        key=key,
        jwt_kid="bench",
        jwt_key=ec.generate_private_key(ec.SECP256R1()),
    )
    entry = Entry(spiffe_id=spiffe_id, selectors=Selectors(uid=os.getuid()), dns_names=(arguments.name,), ttl_s=_LIFE_S)
    registry = Registry([TrustDomainAuthority(spiffe_id.trust_domain, authority=authority)], [entry])
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with DevWorkloadApi(arguments.socket, registry):
        listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", arguments.port)
        async with listening:
            await ended.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workload_api", description=__doc__)
    for option in ("--socket", "--authority", "--key"):
        parser.add_argument(option, required=True, type=Path)
    for option in ("--spiffe-id", "--name"):
        parser.add_argument(option, required=True)
    parser.add_argument("--port", required=True, type=int)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
