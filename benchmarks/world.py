"""Shared parts of all peers in a run: a trust domain, its certificates, one issuer of tokens, and the ports."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.certificates import authority_certificate, certificate_pem, new_key, svid_certificate
from sidecar_dev.files import write_whole
from sidecar_dev.pki import Authority, TrustDomainAuthority
from sidecar_dev.processes import free_ports

TRUST_DOMAIN: Final = "bench.example"
CALLER: Final = f"spiffe://{TRUST_DOMAIN}/agent/caller"  # the caller: the load generator
AGENT: Final = f"spiffe://{TRUST_DOMAIN}/agent/agent"  # the agent behind every inbound peer
TOOL: Final = f"spiffe://{TRUST_DOMAIN}/tool/tool"  # the target of every outbound peer
STRANGER: Final = f"spiffe://{TRUST_DOMAIN}/agent/stranger"
FRONT: Final = f"spiffe://{TRUST_DOMAIN}/agent/front"  # the entry where users log in
FIRST: Final = f"spiffe://{TRUST_DOMAIN}/agent/first"  # two agents in the middle of a chain
SECOND: Final = f"spiffe://{TRUST_DOMAIN}/agent/second"
STS: Final = f"spiffe://{TRUST_DOMAIN}/sts"
CLIENT_ID: Final = "front-app"
LOGIN_SCOPE: Final = "assistant"
SERVER_NAME: Final = "proxy.bench.example"  # some peers require a name in the handshake
SCOPE: Final = "docs.read"
KID: Final = "bench-1"

_ALL: Final = (CALLER, AGENT, TOOL, STRANGER, FRONT, FIRST, SECOND, STS)
_LIFE_S: Final = 24 * 3600
_TOKEN_LIFE_S: Final = 12 * 3600


@dataclass(frozen=True, slots=True)
class Pem:
    """Files of one identity: the chain, the key, and both in one, as some servers require."""

    certificate: Path
    key: Path
    both: Path


class Ports:
    """Ports on loopback by name, assigned on first use, when each is free."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def of(self, name: str) -> int:
        """Return the port of this name."""
        if name not in self._given:
            (self._given[name],) = free_ports(1)
        return self._given[name]

    def name_of(self, port: int) -> str:
        """Return the owner of a port."""
        return next(name for name, given in self._given.items() if given == port)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The shared parts of one run, in ``folder``."""

    folder: Path
    ports: Ports
    authority: TrustDomainAuthority = field(repr=False)
    bundle: Path
    identities: dict[str, Pem]
    signing_key: ec.EllipticCurvePrivateKey = field(repr=False)
    public_key: Path  # of the issuer, as PEM
    jwks: Path

    @property
    def issuer(self) -> str:
        """The issuer of all tokens: a small server on loopback with only its keys."""
        return f"http://{self.at('issuer')}"

    @property
    def jwks_url(self) -> str:
        """URL of its keys."""
        return f"{self.issuer}/file"

    def at(self, name: str) -> str:
        """Return host and port of one listener."""
        return f"127.0.0.1:{self.port(name)}"

    def port(self, name: str) -> int:
        """Return the port of a listener; the same name always has the same port."""
        return self.ports.of(name)

    def tokens(self, count: int, **changes: object) -> list[str]:
        """Make delegated tokens, each different: for the agent, from a subject, with the caller as the actor."""
        return [_signed(self.signing_key, {**_claims(self.issuer, number), **changes}) for number in range(count)]

    def name_of(self, address: str) -> str:
        """Return the name of the listener at ``HOST:PORT``."""
        return self.ports.name_of(int(address.rpartition(":")[2]))

    def logins(self, count: int, **changes: object) -> list[str]:
        """Make different users' access tokens, as the issuer would issue them to the front app."""
        client = {"azp": CLIENT_ID, "client_id": CLIENT_ID, "aud": CLIENT_ID, "scope": LOGIN_SCOPE}
        tokens = []
        for number in range(count):
            claims = {**_claims(self.issuer, number), **client, **changes}
            del claims["act"]
            tokens.append(_signed(self.signing_key, claims))
        return tokens

    def token_file(self, name: str, tokens: list[str]) -> Path:
        """Write the tokens for the load generator, one per line."""
        path = self.folder / name
        path.write_text("\n".join(tokens) + "\n")
        path.chmod(0o600)
        return path


def make_world(folder: Path) -> World:
    """Create keys and certificates for one run. They live a day, and the folder is removed at the end."""
    authority = TrustDomainAuthority(TrustDomain(TRUST_DOMAIN))
    bundle = folder / "bundle.pem"
    bundle.write_bytes(authority.bundle_pem())
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    public_key, jwks = folder / "issuer.pub.pem", folder / "jwks.json"
    public_key.write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    member = {**ECAlgorithm.to_jwk(public, as_dict=True), "kid": KID, "alg": "ES256", "use": "sig"}
    jwks.write_text(json.dumps({"keys": [member]}))
    return World(
        folder=folder,
        ports=Ports(),
        authority=authority,
        bundle=bundle,
        identities={name: write_identity(authority, name, folder) for name in _ALL},
        signing_key=key,
        public_key=public_key,
        jwks=jwks,
    )


def write_identity(authority: TrustDomainAuthority, spiffe_id: str, folder: Path, *, above: bytes = b"") -> Pem:
    """Write an SVID as files, mode 0600 where a key is in them. ``above`` is added to the chain, as PEM."""
    svid = authority.issue_x509(SpiffeId(spiffe_id), ttl_s=_LIFE_S, dns_names=[SERVER_NAME])
    stem = folder / spiffe_id.rpartition("/")[2]
    files = Pem(stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem"))
    for path, content in (
        (files.certificate, svid.chain_pem + above),
        (files.key, svid.key_pem),
        (files.both, svid.chain_pem + above + svid.key_pem),
    ):
        write_whole(path, content, private=path != files.certificate)
    return files


def write_chained_identity(authority: TrustDomainAuthority, spiffe_id: str, folder: Path) -> Pem:
    """Write an SVID whose issuer is an intermediate of the authority: the chain has two certificates."""
    above = authority.current
    key = new_key("ec-p256")
    own = authority_certificate(authority.trust_domain, key, ttl_s=_LIFE_S, issued_at=int(time.time()))
    builder = x509.CertificateBuilder().subject_name(own.subject).issuer_name(above.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(own.not_valid_before_utc).not_valid_after(own.not_valid_after_utc)
    for extension in own.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(above.key, hashes.SHA256())
    intermediate = TrustDomainAuthority(
        authority.trust_domain,
        authority=Authority(certificate=certificate, key=key, jwt_kid=above.jwt_kid, jwt_key=above.jwt_key),
    )
    return write_identity(intermediate, spiffe_id, folder, above=certificate_pem(certificate))


def leaves(world: World, spiffe_id: str, count: int) -> Path:
    """Write ``count`` certificates of one workload, as its replicas would have; all have the same key."""
    path = world.folder / f"{spiffe_id.rpartition('/')[2]}-{count}.leaves"
    if not path.exists():
        key = load_pem_private_key(world.identities[spiffe_id].key.read_bytes(), None)
        authority = world.authority.current
        now = int(time.time())
        how: Any = {"issuer": authority.certificate, "issuer_key": authority.key, "dns_names": [SERVER_NAME]}
        how |= {"ttl_s": _LIFE_S, "issued_at": now}
        certificates = (svid_certificate(SpiffeId(spiffe_id), key, **how) for _ in range(count))  # type: ignore[arg-type]
        path.write_bytes(b"".join(map(certificate_pem, certificates)))
    return path


def _claims(issuer: str, number: int) -> dict[str, object]:
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": f"user-{number % 1000}",
        "aud": AGENT,
        "scope": SCOPE,
        "client_id": CALLER,
        "act": {"sub": CALLER},
        "iat": now,
        "exp": now + _TOKEN_LIFE_S,
        "jti": uuid.uuid4().hex,
    }


def _signed(key: ec.EllipticCurvePrivateKey, claims: dict[str, object]) -> str:
    """Sign a JWS in compact form, by hand: a library's encode takes twice as long, and there are many."""
    text = f"{_part({'alg': 'ES256', 'typ': 'at+jwt', 'kid': KID})}.{_part(claims)}"
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _part(value: dict[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
