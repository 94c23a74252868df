"""Settings that fit the evidence: ``issuers`` and ``exchange`` of a sidecar, ``login_issuers`` of a token service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.jws import ALGORITHMS
from delegation_core.profile import ActorForm, IssuerProfile
from delegation_core.profile_presets import PRESETS
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError
from sidecar.doctor.attempts import Examination
from sidecar.doctor.clients import Method
from sidecar.doctor.facts import main_exchange
from sidecar.doctor.reading import Reading
from sidecar.doctor.verdicts_actor import act_of, names_clients, with_actor
from sidecar.exchange.adapters.adapter import STATIC, ClientAuth

PLACEHOLDER_DOMAIN: Final = "acme.example"
_DELEGATED: Final = ("sts", "keycloak", "spring", "zitadel", "entra")  # presets of tokens that name an actor
_CLIENT_AUTH: Final = {
    Method.BASIC: ClientAuth.SECRET_BASIC,
    Method.POST: ClientAuth.SECRET_POST,
    Method.KEY: ClientAuth.PRIVATE_KEY_JWT,
    Method.SPIFFE: ClientAuth.JWT_SPIFFE,
    Method.TLS: ClientAuth.TLS_SAN_URI,
}

Settings = dict[str, object]


def profile_of(found: Examination) -> Settings | str | None:
    """Return the profile of the issued tokens: a preset, or one with changes; None if unreadable or no preset fits."""
    attempt = main_exchange(found)
    if attempt is None or attempt.reading.claims is None or _algorithm(attempt.reading) is None:
        return None
    reading = attempt.reading
    fitting = [
        (_changes(preset, reading, found), name) for name in _DELEGATED if _may_fit(preset := PRESETS[name], reading)
    ]
    if not fitting:
        return None
    changes, name = min(fitting, key=lambda one: len(one[0]))
    return {"preset": name, **changes} if changes else name


def issuer_settings(found: Examination) -> Settings | None:
    """Return the entry of ``issuers``; None if no profile fits."""
    profile, server = profile_of(found), found.case.server
    if profile is None or server.issuer is None or server.jwks is None:
        return None
    scopes = sorted(found.subject.scopes or frozenset((found.case.scope or "").split()))
    return {
        "issuer": _describe_issuer(found) or server.issuer,
        "jwks": server.jwks,
        **_tls(server.jwks),
        "profile": profile,
        "actor_trust_domains": _trust_domains(found),
        "scopes": scopes,
    }


def exchange_settings(found: Examination) -> Settings | None:
    """Return the section ``exchange``, with client 1 as the sidecar's client; None without an issuer."""
    server = found.case.server
    if server.issuer is None:
        return None
    return {
        "issuer": _describe_issuer(found) or server.issuer,
        "token_endpoint": server.token,
        **_tls(server.token),
        **_client_auth(found),
        **_options(found),
    }


def _client_auth(found: Examination) -> Settings:
    method = _CLIENT_AUTH.get(found.first.method)
    if method is None:
        return {}
    name: Settings = {} if _spiffe_id(found.first.client_id) else {"client_id": found.first.client_id}
    file: Settings = {}
    if method in STATIC:
        file = {"credential_file": "/etc/sidecar/client.credential", "allow_static_credential": True}
    return {"client_auth": method.value, **name, **file}


def _options(found: Examination) -> Settings:
    """Return the options of the adapter that differ from its defaults: the actor, and the type asked for."""
    options: dict[str, str] = {}
    accepted = with_actor(found)
    if names_clients(found):
        options["actor_token"] = "client"  # noqa: S105 - a kind
    elif accepted is not None and found.own[0] is not found.case.actors[0]:
        options["actor_token"] = "own-token"  # noqa: S105 - a kind
    if found.lawful is not None and found.lawful.requested is None:
        options["requested_token_type"] = "none"  # noqa: S105 - a kind
    return {"options": options} if options else {}


def login_settings(found: Examination) -> Settings | None:
    """Return an entry of a token service's ``login_issuers``: the server's tokens as logins only; None if none fits."""
    server, reading = found.case.server, found.subject
    if server.jwks is None or reading.kind != "JWT" or not isinstance(reading.claim("iss"), str):
        return None
    kind = "oidc-id-token" if found.case.subject.type.endswith(":id_token") else "oidc-access-token"
    if not _may_fit(PRESETS[kind], reading) or _algorithm(reading) not in PRESETS[kind].algorithms:
        return None
    scope = reading.scope_claim
    claim = scope[0] if scope is not None else "scope"
    return {
        "issuer": reading.claim("iss"),
        "jwks": server.jwks,
        **_tls(server.jwks),
        "profile": kind,
        "scope_from": {"claim": claim, "map": {one: [one] for one in sorted(reading.scopes or ())}},
    }


def _may_fit(preset: IssuerProfile, reading: Reading) -> bool:
    """Return False if the token's claims or type rule out the preset, and settings cannot change that."""
    claims = reading.claims or {}
    if not preset.required_claims <= claims.keys() or preset.refused_claims & claims.keys():
        return False
    payload_typ = claims.get("typ")
    if preset.payload_typ is not None and not (
        isinstance(payload_typ, str | None) and payload_typ in preset.payload_typ
    ):
        return False
    # a preset that goes by typ alone must keep it, or an ID token could be taken for an access token
    return bool(preset.refused_claims) or _typ(reading) in preset.typ


def _algorithm(reading: Reading) -> str | None:
    """Return the algorithm of a JWT, if a profile may list it."""
    algorithm = reading.header.get("alg")
    return algorithm if isinstance(algorithm, str) and algorithm in ALGORITHMS else None


def _typ(reading: Reading) -> str | None:
    typ = reading.header.get("typ")
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else None


def _changes(preset: IssuerProfile, reading: Reading, found: Examination) -> Settings:
    changes: Settings = {}
    if _typ(reading) not in preset.typ:
        changes["typ"] = [_typ(reading)]
    algorithm = _algorithm(reading)
    if algorithm not in preset.algorithms:
        changes["algorithms"] = [algorithm]
    scope = reading.scope_claim
    if scope is not None and scope[0] != preset.scope_claim:
        changes["scope_claim"] = scope[0]
    if scope is not None and preset.scope_shape not in (scope[1], "either"):
        changes["scope_shape"] = scope[1]
    return changes | _actor_changes(preset, found)


def _actor_changes(preset: IssuerProfile, found: Examination) -> Settings:
    act = act_of(main_exchange(found))
    if act is None:
        return {}
    form, issuer = _form_of(act), _describe_issuer(found)
    changes: Settings = {} if form is preset.actor else {"actor": form.value}
    if form is ActorForm.ISS_SUB and act.get("iss") != issuer:
        changes["act_iss"] = act["iss"]
    if form is ActorForm.TABLE:
        row = {"sub": act.get("sub"), "spiffe_id": f"spiffe://{PLACEHOLDER_DOMAIN}/agent/{found.first.client_id}"}
        changes["actor_table"] = [({"iss": act["iss"]} if isinstance(act.get("iss"), str) else {}) | row]
    return changes


def _form_of(act: Mapping[str, object]) -> ActorForm:
    if _spiffe_id(act.get("sub")) is not None:
        return ActorForm.ISS_SUB if isinstance(act.get("iss"), str) else ActorForm.SUB
    return ActorForm.CLIENT_ID if _spiffe_id(act.get("client_id")) is not None else ActorForm.TABLE


def _trust_domains(found: Examination) -> list[str]:
    act = act_of(main_exchange(found)) or {}
    named = _spiffe_id(act.get("sub")) or _spiffe_id(act.get("client_id"))
    return [PLACEHOLDER_DOMAIN if named is None else str(named.trust_domain)]


def _spiffe_id(value: object) -> SpiffeId | None:
    try:
        return SpiffeId(value) if isinstance(value, str) else None
    except SpiffeIdError:
        return None


def _describe_issuer(found: Examination) -> str | None:
    attempt = main_exchange(found)
    told = None if attempt is None else attempt.reading.claim("iss")
    return told if isinstance(told, str) else None


def _tls(url: str) -> Settings:
    return {"tls": {"ca": "/etc/ssl/certs/ca-certificates.crt"}} if url.startswith("https:") else {}
