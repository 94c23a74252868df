"""A server for each built-in adapter, and the settings, plans and steps by which tests over all of them ask it.

A new adapter needs a counterpart here: `test_every_adapter_has_a_counterpart` fails without one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from delegation_core.bearer import parse_bearer
from delegation_core.crossing import Crossing
from delegation_core.decide import decide_entry
from delegation_core.login_issuer import ScopeFrom
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, Plan, plan_outbound, plan_own
from delegation_core.policy import Policy
from delegation_core.profile import ActorForm
from delegation_core.profile_presets import PRESETS
from delegation_core.rfc8693 import TOKEN_TYPE_JWT
from delegation_core.route import OutboundRoute
from delegation_core.verify import VerifiedToken
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.adapters.id_jag_04 import ID_JAG
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import EndpointSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.adapters import entra_world
from tests.exchange.adapters.keycloak_world import REALM, entry_policy, login_plan
from tests.exchange.world import LOGIN, SUB_ID, authority, plan, policy, route
from tests.fakes.chained_sts import ChainedSts
from tests.fakes.entra_tenant import AGENT, BLUEPRINT, CRM_API, FOR_EXCHANGE, EntraTenant
from tests.fakes.keycloak_realm import MAY_ACT, KeycloakRealm
from tests.fakes.lying_sts import Form, LyingSts, Reply
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, TokenMint, encode, from_base64url, private_key

CREDENTIALS: Final = "client_credentials"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_SECRET: Final = "the-secret-of-this-client-4711"
HOME: Final = TokenMint("https://as.home.example", key=4)

OTHER_TARGETS: Final[Mapping[str, OutboundRoute]] = {
    "audience": route(audience="spiffe://acme.example/tool/crm2"),
    "scope": route(scopes=("docs.read",)),
    "route": route("mail"),
}

Planned = tuple[Plan, Policy]


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """``grants`` are the grant types of the steps in turn. ``planned`` makes the plan of one user's call to a route.

    ``target`` is the usual route, and ``others`` are routes that differ from it in one fact.

    ``settings`` are those of the exchange at a server with this URL, with secrets in a folder. ``truths`` names answers
    that are faults at other servers and lawful at this one. ``users``: the tokens are those of users.
    """

    adapter: str
    grants: tuple[str, ...]
    server: Callable[[], LyingSts]
    planned: Callable[[str, OutboundRoute], Planned]
    settings: Callable[[str, Path], dict[str, Any]]
    truths: frozenset[str] = frozenset()
    users: bool = True
    target: OutboundRoute = field(default_factory=route)
    others: Mapping[str, OutboundRoute] = field(default_factory=lambda: OTHER_TARGETS)

    def asked(self, user: str = "user-1", to: OutboundRoute | None = None) -> Planned:
        """Return the plan for a user's call, and the policy that it was made by."""
        return self.planned(user, to or self.target)


def secret_file(folder: Path) -> str:
    return _private(folder / "client.secret", CLIENT_SECRET.encode())


def key_file(folder: Path) -> str:
    key = private_key("ES256", 9)
    return _private(folder / "client.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _private(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    file.chmod(0o600)
    return str(file)


def by_secret(method: ClientAuth, folder: Path, audience: str = ISSUER) -> ClientAuthSettings:
    return ClientAuthSettings(
        method=method, audience=audience, credential_file=secret_file(folder), allow_static=True, client_id="writer"
    )


def by_key(folder: Path, audience: str) -> ClientAuthSettings:
    method = ClientAuth.PRIVATE_KEY_JWT
    return ClientAuthSettings(method=method, audience=audience, credential_file=key_file(folder), allow_static=True)


class OwnTokenSts(LyingSts):
    """Gives a client a token of its own, and takes it as the actor."""

    async def reply(self, form: bytes) -> Reply:
        reply = await super().reply(form)
        if self.forms[-1]["grant_type"] != CREDENTIALS:
            return reply
        token = f"own-token-of-this-client-{len(self.forms)}"
        return Reply(body=encode({"access_token": token, "token_type": "Bearer", "expires_in": 600}))

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        if form["grant_type"] == CREDENTIALS:
            return self.mint.claims()
        return super().claims(form, **changes)

    def members(self, form: Form, token: str, **changes: object) -> dict[str, object]:
        return super().members({"scope": "", **form}, token, **changes)


class PrefixingSts(ChainedSts):
    """The server of another domain, which names users of ours behind a prefix."""

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        subject = json.loads(from_base64url(form["subject_token"].split(".")[1]))["sub"]
        return super().claims(form, **{"sub": f"home:{subject}", **changes})


class WorkloadSts(LyingSts):
    """Issues a workload its own token, by its JWT-SVID as the grant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.behaviour = lambda _sts, form: self._own(form)

    def _own(self, form: Form) -> Reply:
        name = json.loads(from_base64url(form["assertion"].split(".")[1]))["sub"]
        claims: dict[str, object] = {
            "iss": self.mint.issuer, "sub": name, "client_id": name, "aud": form["resource"], "scope": form["scope"],
            "iat": NOW, "exp": NOW + 300, "jti": f"own-{len(self.forms)}",
        }  # fmt: skip
        return Reply(
            body=encode(
                {
                    "access_token": self.mint.mint(claims),
                    "token_type": "Bearer",
                    "expires_in": 300,
                    "scope": form["scope"],
                }
            )
        )


def _chain(user: str, to: OutboundRoute) -> Planned:
    return plan(to, sub=user), policy()


def _crossed(user: str, to: OutboundRoute) -> Planned:
    crossing = Crossing(
        issuer=HOME.issuer,
        subject_prefix="home:",
        scopes={"docs.read": frozenset({"crm.read", "docs.read"})},
    )
    token = _home_token(user)
    delegation = Delegation(token=token, may_call=frozenset({"crm", "mail"}), entry=False, scope=token.scope)
    return plan_outbound(delegation, replace(to, crossings={HOME.issuer: crossing}), policy=policy(), now=NOW), policy()


@cache
def _home_token(user: str) -> VerifiedToken:
    return HOME.verified(sub=user, txn="txn-1", sub_id=SUB_ID)


def _jag(user: str, to: OutboundRoute) -> Planned:
    profile = replace(PRESETS["sts"], actor=ActorForm.CLIENT, subject_issuer=LOGIN.issuer)
    by = replace(policy(), issuers={ISSUER: TokenMint().trusted(profile)})
    assert by.entry is not None
    users = by.entry.issuers[LOGIN.issuer]
    worth = ScopeFrom(claim="groups", map={"sales": frozenset({"crm.read", "docs.read"})})
    by = replace(by, entry=replace(by.entry, issuers={LOGIN.issuer: replace(users, scope_from=worth)}))
    raw = _id_token(user)
    bearer = parse_bearer(raw)
    return plan_outbound(decide_entry(bearer, key=LOGIN.key, policy=by, now=NOW), to, policy=by, now=NOW), by


@cache
def _id_token(user: str) -> str:
    claims = {"sub": user, "aud": "front", "azp": "front", "groups": ["sales"], "act": ABSENT, "client_id": ABSENT}
    return LOGIN.mint(LOGIN.claims(**claims), LOGIN.header(typ="JWT"))


@cache
def _realm(profile: str, user: str, to: OutboundRoute) -> Planned:
    by = entry_policy(profile)
    assert by.entry is not None
    worth = ScopeFrom(claim="scope", map={"crm.read": frozenset({"crm.read", "docs.read"})})
    issuers = {ISSUER: replace(by.entry.issuers[ISSUER], scope_from=worth)}
    by = replace(by, entry=replace(by.entry, issuers=issuers, may_call=frozenset({"crm", "mail"})))
    delegation = login_plan(by, sub=user, jti=f"onrtac:{user}", may_act=MAY_ACT).delegation
    assert delegation is not None
    return plan_outbound(delegation, to, policy=by, now=NOW), by


def _realm_server(*, delegation: bool) -> KeycloakRealm:
    reaches = frozenset({str(CRM), "spiffe://acme.example/tool/crm2"})
    realm = KeycloakRealm(mint=REALM, bundle=authority(), delegation=delegation)
    realm.clients |= reaches
    realm.scopes |= {"docs.read"}
    realm.audiences = {"crm.read": reaches, "docs.read": reaches}
    return realm


OTHER_API: Final = "11110d34-8dca-4ab8-a0bc-aaec4d3a3e36"
DOCS_API: Final = "22220d34-8dca-4ab8-a0bc-aaec4d3a3e36"


@cache
def _at_tenant(user: str, to: OutboundRoute) -> Planned:
    by = entra_world.entry_policy()
    assert by.entry is not None
    worth = ScopeFrom(claim="scp", map={"crm.read": frozenset({"crm.read", "docs.read"})})
    issuers = {ISSUER: replace(by.entry.issuers[ISSUER], scope_from=worth)}
    by = replace(by, entry=replace(by.entry, issuers=issuers, may_call=frozenset({"crm", "mail"})))
    delegation = entra_world.login_plan(by, oid=user).delegation
    assert delegation is not None
    return plan_outbound(delegation, to, policy=by, now=NOW), by


def _tenant() -> EntraTenant:
    granted = {name: frozenset({"crm.read"}) for name in (CRM_API, OTHER_API)} | {DOCS_API: frozenset({"docs.read"})}
    exposed = frozenset({"crm.read", "docs.read"})
    return EntraTenant(mint=entra_world.TENANT, bundle=authority(), granted=granted, exposed=exposed)


def _by_blueprint(_url: str, _folder: Path) -> dict[str, Any]:
    auth = ClientAuthSettings(method=ClientAuth.JWT_SVID, audience=FOR_EXCHANGE, client_id=BLUEPRINT)
    return {"client_auth": auth, "options": {"agent_id": AGENT}}


def _own(_user: str, to: OutboundRoute) -> Planned:
    own = replace(to, token="self")
    allowed = replace(policy(), outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    return plan_own(own, policy=allowed, now=NOW), allowed


def _elsewhere(name: str, auth: Callable[[Path], ClientAuthSettings]) -> Callable[[str, Path], dict[str, Any]]:
    """Return settings with another endpoint on the same server, and a static credential at the token endpoint."""

    def settings(url: str, folder: Path) -> dict[str, Any]:
        other = EndpointSettings(endpoint=Endpoint(url=url), client_auth=auth(folder))
        return {"client_auth": by_secret(ClientAuth.SECRET_POST, folder), "endpoints": {name: other}}

    return settings


def _at_realm(_url: str, _folder: Path) -> dict[str, Any]:
    return {"client_auth": ClientAuthSettings(method=ClientAuth.JWT_SPIFFE, audience=ISSUER)}


_BY_CLIENT: Final = frozenset({"no act"})  # the profile reads the actor elsewhere
_NO_CHAIN: Final = frozenset({"another transaction"})  # none came in

COUNTERPARTS: Final[Mapping[str, Counterpart]] = {
    "rfc8693": Counterpart(
        adapter="rfc8693",
        grants=(EXCHANGE,),
        server=LyingSts,
        planned=_chain,
        settings=lambda _url, folder: {"client_auth": by_secret(ClientAuth.SECRET_BASIC, folder)},
    ),
    "rfc8693, own token": Counterpart(
        adapter="rfc8693",
        grants=(CREDENTIALS, EXCHANGE),
        server=OwnTokenSts,
        planned=_chain,
        settings=lambda _url, folder: {
            "client_auth": by_secret(ClientAuth.SECRET_POST, folder),
            "options": {"actor_token": "own-token"},
        },
    ),
    "id-jag-04": Counterpart(
        adapter="id-jag-04",
        grants=(EXCHANGE, GRANT),
        server=lambda: ChainedSts(
            granting=LOGIN,
            typ="oauth-id-jag+jwt",
            grant_type=ID_JAG,
            about={"client_id": "writer"},
            lawful={"act": ABSENT, "parent_jti": ABSENT},
        ),
        planned=_jag,
        settings=_elsewhere("idp", partial(by_secret, ClientAuth.SECRET_BASIC, audience=LOGIN.issuer)),
        truths=_BY_CLIENT | _NO_CHAIN,
    ),
    "identity-chaining": Counterpart(
        adapter="identity-chaining",
        grants=(EXCHANGE, GRANT),
        server=lambda: PrefixingSts(granting=HOME, grant_type=TOKEN_TYPE_JWT, lawful={"parent_jti": ABSENT}),
        planned=_crossed,
        settings=_elsewhere("home", partial(by_key, audience=HOME.issuer)),
    ),
    "keycloak-26.7": Counterpart(
        adapter="keycloak-26.7",
        grants=(EXCHANGE,),
        server=partial(_realm_server, delegation=False),
        planned=partial(_realm, "keycloak-26.7"),
        settings=_at_realm,
        truths=_BY_CLIENT | _NO_CHAIN,
    ),
    "keycloak-26.8": Counterpart(
        adapter="keycloak-26.8",
        grants=(CREDENTIALS, EXCHANGE),
        server=partial(_realm_server, delegation=True),
        planned=partial(_realm, "keycloak"),
        settings=_at_realm,
        truths=_NO_CHAIN,
    ),
    "entra-agent-id": Counterpart(
        adapter="entra-agent-id",
        grants=(CREDENTIALS, GRANT),
        server=_tenant,
        planned=_at_tenant,
        settings=_by_blueprint,
        truths=_BY_CLIENT | _NO_CHAIN | {"no name of its own"},
        target=route(audience=CRM_API),
        others={
            "audience": route(audience=OTHER_API),
            "scope": route(audience=DOCS_API, scopes=("docs.read",)),
            "route": route("mail", audience=CRM_API),
        },
    ),
    "workload-authorization-grant-02": Counterpart(
        adapter="workload-authorization-grant-02",
        grants=(GRANT,),
        server=WorkloadSts,
        planned=_own,
        settings=lambda _url, _folder: {},
        truths=_BY_CLIENT | _NO_CHAIN,
        users=False,
    ),
}
