"""Claims behind a good signature, which prove nothing yet: a peer's token, a user's login, a token that an STS issued.

The input is the claim set as JSON, signed here with the trusted key. Every accepted token must satisfy the invariants,
checked on the raw claims and not on the parsed ones.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from delegation_core.bearer import Bearer, parse_bearer
from delegation_core.decide import accept_issued, decide_entry, decide_verified
from delegation_core.errors import Denied, Reason
from delegation_core.verify import verify_token
from tests.core.world import (
    CRM,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    STS_TRUST,
    WRITER,
    login,
    plan,
    signing_key,
    verification_key,
)
from tests.fuzz.properties import quiet

_PLANS: Final = (plan(), plan(login()))


@lru_cache(maxsize=2)
def _header(typ: str) -> str:
    return _part(orjson.dumps({"alg": "ES256", "kid": "k1", "typ": typ}))


def _part(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(claims: bytes, typ: str = "at+jwt") -> Bearer | None:
    signing_input = f"{_header(typ)}.{_part(claims)}"
    r, s = decode_dss_signature(signing_key("sts").sign(signing_input.encode(), ECDSA(SHA256())))
    try:
        return parse_bearer(f"{signing_input}.{_part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}")
    except Denied:
        return None


def _decided(decide: Callable[[], Any]) -> Any:
    try:
        return decide()
    except Denied as error:
        assert error.reason is not Reason.INTERNAL
        quiet(error)
        return None


def peer_token(data: bytes) -> None:
    """A permit means: a token by the one issuer, for us, within its times, with the peer as the outermost actor."""
    bearer = _signed(data)
    if bearer is None:
        return
    key, ours = verification_key(), frozenset({str(WRITER)})
    token = _decided(lambda: verify_token(bearer, issuer=STS_TRUST, key=key, audiences=ours, now=NOW))
    if token is None:
        return
    permit = _decided(lambda: decide_verified(token, peer=PLANNER, route=SEARCH, policy=POLICY, now=NOW))
    if permit is None:
        return
    claims = orjson.loads(data)
    assert claims["iss"] == STS
    assert claims["aud"] in (str(WRITER), [str(WRITER)])
    assert claims["act"]["sub"] == str(PLANNER)
    assert claims["exp"] > NOW - STS_TRUST.profile.leeway_s
    assert claims["sub"] == permit.token.subject != ""
    assert "docs.read" in claims["scope"].split()
    assert permit.token.scope <= set(claims["scope"].split())


def issued_token(data: bytes) -> None:
    """Accept an issued token only if subject, actor, chain, audience, scope and lifetime are as planned."""
    bearer = _signed(data)
    if bearer is None:
        return
    for planned in _PLANS:
        permit = _decided(
            lambda planned=planned: accept_issued(  # type: ignore[misc]
                bearer, plan=planned, key=verification_key(), policy=POLICY, now=NOW
            )
        )
        if permit is None:
            continue
        claims = orjson.loads(data)
        assert planned.delegation is not None
        subject_token = planned.delegation.token
        prefix = "idp|" if planned.delegation.entry else ""
        assert claims["sub"] == prefix + subject_token.subject
        assert claims["iss"] == STS
        assert claims["aud"] in (str(CRM), [str(CRM)])
        assert claims["act"]["sub"] == str(WRITER)
        prior = claims["act"].get("act")
        assert prior == (None if planned.delegation.entry else subject_token.claims["act"])
        assert set(claims.get("scope", "").split()) <= set(planned.scope)
        assert NOW - STS_TRUST.profile.leeway_s < claims["exp"] <= subject_token.expires_at


def login_token(data: bytes) -> None:
    """A user's login is accepted only for the entry's own client, with the scopes of ``scope_from``."""
    bearer = _signed(data, "JWT")
    if bearer is None:
        return
    delegation = _decided(lambda: decide_entry(bearer, key=verification_key(), policy=POLICY, now=NOW))
    if delegation is None:
        return
    claims = orjson.loads(data)
    assert claims["iss"] != STS
    assert claims["aud"] in ("front-app", ["front-app"])
    assert "act" not in claims
    assert delegation.entry
    assert delegation.scope <= {"crm.read", "docs.read"}
    assert delegation.token.subject == claims["sub"]
