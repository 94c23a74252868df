"""Fresh keys that no server trusts: for DPoP proofs (RFC 9449) and for forged tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from jwt import PyJWS
from jwt import encode as encode_jwt
from jwt.algorithms import ECAlgorithm

from delegation_core.jws import encode_part

_ALGORITHM: Final = "ES256"
_JWS: Final = PyJWS()  # signs any claims; `encode` insists on types that a foreign token need not have


@dataclass(frozen=True, slots=True)
class ProofKey:
    """A fresh key that lives as long as the command."""

    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()), repr=False)

    def proof(self, *, url: str, now: int, name: str, nonce: str | None) -> str:
        """Return a DPoP proof for a POST to ``url`` (RFC 9449 section 4.2)."""
        claims: dict[str, Any] = {"jti": name, "htm": "POST", "htu": url, "iat": now}
        if nonce is not None:
            claims["nonce"] = nonce
        return encode_jwt(claims, self.key, algorithm=_ALGORITHM, headers={"typ": "dpop+jwt", "jwk": self._jwk})

    @property
    def thumbprint(self) -> str:
        """The ``jkt`` of a token that is bound to this key (RFC 7638)."""
        jwk = self._jwk
        ordered = ",".join(f'"{name}":"{jwk[name]}"' for name in ("crv", "kty", "x", "y"))
        return encode_part(sha256(f"{{{ordered}}}".encode()).digest()).decode()

    def forge(self, claims: Mapping[str, object], header: Mapping[str, object]) -> str:
        """Sign claims with this key under a foreign ``kid``: every server must refuse the token."""
        kept = {name: value for name, value in header.items() if name in {"kid", "typ"} and isinstance(value, str)}
        return _JWS.encode(json.dumps(claims).encode(), self.key, algorithm=_ALGORITHM, headers=kept)

    @property
    def _jwk(self) -> dict[str, Any]:
        return dict(ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True))


def make_unsigned(claims: Mapping[str, object]) -> str:
    """Return a JWT without a signature (``alg`` none), which nobody may accept (RFC 8725 section 3.2)."""
    return _JWS.encode(json.dumps(claims).encode(), "", algorithm="none")
