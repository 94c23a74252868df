"""A small world for the decision tests: a planner calls a writer for alice, the writer calls a CRM tool.

Everything is lawful; each test changes one fact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from delegation_core.act import parse_act
from delegation_core.bearer import Bearer, fingerprint_of, parse_bearer
from delegation_core.errors import Reason, SidecarError
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.keyset import VerificationKey
from delegation_core.login_issuer import LoginKind, ScopeFrom, UserIssuer
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, Plan, plan_outbound
from delegation_core.policy import Deny, Entry, Policy
from delegation_core.profile_presets import PRESETS
from delegation_core.route import InboundRoute, OutboundRoute, Upstream
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.verify import TrustedIssuer, VerifiedToken

NOW: Final = 1_790_000_000
STS: Final = "https://sts.acme.example"
IDP: Final = "https://login.acme.example"
ACME: Final = TrustDomain("acme.example")
FRONT: Final = SpiffeId("spiffe://acme.example/agent/front")
PLANNER: Final = SpiffeId("spiffe://acme.example/agent/planner")
WRITER: Final = SpiffeId("spiffe://acme.example/agent/writer")
CRM: Final = SpiffeId("spiffe://acme.example/tool/crm")

Claims = dict[str, Any]

INBOUND_CLAIMS: Final[Claims] = {
    "iss": STS,
    "sub": "alice",
    "aud": str(WRITER),
    "scope": "docs.read crm.read",
    "client_id": str(PLANNER),
    "iat": NOW - 10,
    "exp": NOW + 290,
    "jti": "token-2",
    "parent_jti": "token-1",
    "txn": "txn-1",
    "sub_id": {"format": "iss_sub", "iss": IDP, "sub": "alice"},
    "act": {"sub": str(PLANNER), "act": {"sub": str(FRONT)}},
}
ISSUED_CLAIMS: Final[Claims] = {
    **INBOUND_CLAIMS,
    "aud": str(CRM),
    "scope": "crm.read",
    "client_id": str(WRITER),
    "iat": NOW,
    "jti": "token-3",
    "parent_jti": "token-2",
    "act": {"sub": str(WRITER), "act": INBOUND_CLAIMS["act"]},
}
LOGIN_CLAIMS: Final[Claims] = {
    "iss": IDP,
    "sub": "alice",
    "aud": "front-app",
    "iat": NOW - 60,
    "exp": NOW + 540,
    "jti": "login-1",
    "groups": ["staff", "sales"],
}
ENTRY_CLAIMS: Final[Claims] = {  # claims that the STS issues for the login token
    **ISSUED_CLAIMS,
    "sub": "idp|alice",
    "txn": "txn-new",
    "exp": NOW + 540,
    "parent_jti": "login-1",
    "act": {"sub": str(WRITER)},
}
OWN_CLAIMS: Final[Claims] = {  # claims that the STS issues for the writer itself
    "iss": STS,
    "sub": str(WRITER),
    "aud": str(CRM),
    "scope": "crm.read",
    "client_id": str(WRITER),
    "iat": NOW,
    "exp": NOW + 300,
    "jti": "own-1",
    "txn": "txn-own",
}

SEARCH: Final = InboundRoute(
    name="search",
    path="/search",
    prefix=False,
    methods=frozenset({"POST"}),
    scopes=frozenset({"docs.read"}),
    peers=frozenset({PLANNER}),
    issuers=frozenset({STS}),
    may_call=frozenset({"crm"}),
)
TO_CRM: Final = OutboundRoute(
    name="crm",
    host="crm.mesh",
    prefix=None,
    upstream=Upstream(scheme="https", host="crm.internal", port=7443),
    peer=CRM,
    audience=str(CRM),
    issuer=STS,
    scopes=frozenset({"crm.read", "crm.write"}),
)
STS_TRUST: Final = TrustedIssuer(
    issuer=STS,
    profile=PRESETS["sts"],
    scopes=frozenset({"docs.read", "crm.read", "crm.write"}),
    actor_trust_domains=frozenset({ACME}),
)
USERS: Final = UserIssuer(
    trusted=TrustedIssuer(
        issuer=IDP, profile=PRESETS["oidc-id-token"], scopes=frozenset(), actor_trust_domains=frozenset()
    ),
    kind=LoginKind.ID_TOKEN,
    client_id="front-app",
    scope_from=ScopeFrom(claim="groups", map={"sales": frozenset({"crm.read"}), "staff": frozenset({"docs.read"})}),
    subject_prefix="idp|",
)
ENTRY: Final = Entry(issuers={IDP: USERS}, may_call=frozenset({"crm"}), first_token_life_s=3600)
POLICY: Final = Policy(
    workload=WRITER,
    audiences=frozenset({str(WRITER)}),
    issuers={STS: STS_TRUST},
    token_services=frozenset({STS}),
    inbound=InboundRoutes([SEARCH]),
    outbound=OutboundRoutes([TO_CRM]),
    entry=ENTRY,
    deny=Deny(),
    number=1,
)


@cache
def signing_key(name: str = "sts") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def verification_key(name: str = "sts") -> VerificationKey:
    return VerificationKey(kid="k1", algorithms=frozenset({"ES256"}), public_key=signing_key(name).public_key())


def without(claims: Claims, *names: str) -> Claims:
    return {name: value for name, value in claims.items() if name not in names}


def signed(claims: Claims, *, typ: str | None = "at+jwt", key: str = "sts") -> Bearer:
    """Return the token, signed and parsed."""
    return parse_bearer(jwt.encode(claims, signing_key(key), algorithm="ES256", headers={"kid": "k1", "typ": typ}))


def verified(claims: Claims, **changes: Any) -> VerifiedToken:
    """Return the token as verification would make it, without the cost of a signature."""
    chain = parse_act(claims)
    sub_id = claims.get("sub_id")
    raw = f"raw-of-{claims.get('jti')}"
    token = VerifiedToken(
        raw=raw,
        fingerprint=fingerprint_of(raw),
        issuer=claims["iss"],
        subject=claims["sub"],
        audience=claims["aud"],
        scope=frozenset(claims.get("scope", "").split()),
        expires_at=int(claims["exp"]),
        issued_at=claims["iat"],
        not_before=claims["iat"],
        leeway_s=30,
        jti=claims.get("jti"),
        client_id=claims.get("client_id"),
        txn=claims.get("txn"),
        parent_jti=claims.get("parent_jti"),
        ancestors=tuple(claims.get("ancestor_jtis", ())),
        sid=claims.get("sid"),
        sub_id=(sub_id["iss"], sub_id["sub"]) if sub_id else None,
        chain=chain,
        actor_id=SpiffeId(chain.current.subject) if chain else None,
        claims=claims,
    )
    return replace(token, **changes)


def delegation(claims: Claims = INBOUND_CLAIMS, **changes: Any) -> Delegation:
    token = verified(claims)
    return replace(Delegation(token=token, may_call=frozenset({"crm"}), entry=False, scope=token.scope), **changes)


def login(claims: Claims = LOGIN_CLAIMS) -> Delegation:
    scope = frozenset({"crm.read", "docs.read"})
    return Delegation(token=verified(claims), may_call=frozenset({"crm"}), entry=True, scope=scope)


def plan(of: Delegation | None = None, policy: Policy = POLICY) -> Plan:
    return plan_outbound(of or delegation(), TO_CRM, policy=policy, now=NOW)


def reason_of(judge: Callable[..., object], *arguments: Any, **named: Any) -> Reason | None:
    """Return the reason for which ``judge`` refuses these arguments; None: it does not."""
    try:
        judge(*arguments, **named)
    except SidecarError as error:
        return error.reason
    return None
