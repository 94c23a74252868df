"""Certificates such as a webhook serves with."""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.dev.pki import TrustDomainAuthority

HOST = "injector.sidecar.svc"


def write_pair(
    directory: Path, authority: TrustDomainAuthority | None = None, *, ttl_s: int = 3600, issued_at: int | None = None
) -> TrustDomainAuthority:
    """A certificate for ``HOST`` and its key, as a Secret's volume has them; who signed it."""
    authority = authority or TrustDomainAuthority(TrustDomain("acme.example"))
    name = SpiffeId("spiffe://acme.example/injector")
    issued = authority.issue_x509(name, dns_names=[HOST], ttl_s=ttl_s, issued_at=issued_at)
    for file, content in (("tls.crt", issued.chain_pem), ("tls.key", issued.key_pem)):
        fresh = directory / f".{file}"
        fresh.write_bytes(content)
        os.replace(fresh, directory / file)  # noqa: PTH105
    return authority
