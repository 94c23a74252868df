"""Key sets of issuers and trust domains, and their lifetime."""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from delegation_core.jwk import algorithms_of
from delegation_core.jws import ALGORITHMS
from delegation_core.keyset import KeySet, KeySetError, VerificationKey, parse_jwks, parse_jwt_bundle
from sidecar.identity.issuer import JwksSettings, refresh_delay
from tests.fakes.tokens import encode
from tests.fuzz.properties import quiet

_SETTINGS: Final = JwksSettings(issuer="https://i.test", url="http://127.0.0.1/jwks")


def key_set(data: bytes) -> None:
    """A key is found only under its own kid, for algorithms of its own type, and is the same when published again."""
    for read, use in ((parse_jwks, "sig"), (parse_jwt_bundle, "jwt-svid")):
        try:
            keys = read(data)
        except KeySetError as error:
            quiet(error)
            continue
        _sound(keys)
        for kid in keys.kids:
            key = keys.find(kid)
            assert key is not None
            again = read(encode({"keys": [{**_published(key), "kid": kid, "use": use}]})).find(kid)
            assert again is not None
            assert again.public_key == key.public_key
            assert key.algorithms <= again.algorithms


def _sound(keys: KeySet) -> None:
    assert len(keys) <= 100
    lone = keys.find(None)
    assert lone is None or len(keys) == 1
    for key in [*map(keys.find, keys.kids), *([lone] if lone else [])]:
        assert key is not None
        assert key.kid is None or key.kid in keys.kids
        assert key.algorithms
        assert key.algorithms <= algorithms_of(key.public_key) <= ALGORITHMS


def _published(key: VerificationKey) -> dict[str, Any]:
    public = key.public_key
    if isinstance(public, RSAPublicKey):
        jwk: dict[str, Any] = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return jwk


def cache_control(data: bytes) -> None:
    """Whatever an issuer's cache headers say, its keys are fetched again within half of their lifetime."""
    delay = refresh_delay(_SETTINGS, data.decode("latin-1"), jitter=0.0)
    assert 60 <= delay <= _SETTINGS.max_age_s / 2
