"""Presets of issuer profiles, by the name that settings select. A process that serves gets its profiles finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from delegation_core.profile import ActorForm, IssuerProfile

ACTOR_PROFILE: Final = "actor-profile-01"

# Claims of ID tokens and security events, which must not pass for access tokens of an issuer of untyped tokens.
OTHER_KINDS: Final = frozenset({"nonce", "at_hash", "c_hash", "events"})

_STS = IssuerProfile(
    name="sts",
    typ=frozenset({"at+jwt"}),
    required_claims=frozenset({"iat", "jti", "client_id"}),  # RFC 9068 section 2.2
    max_lifetime_s=86400,
)
# draft-mcguinness-oauth-actor-profile-01: an actor is the pair (act.iss, act.sub), and both are required.
_ACTOR_PROFILE = replace(_STS, name=ACTOR_PROFILE, actor=ActorForm.ISS_SUB, follows_actor_profile=True)
# Keycloak 26.8: the header says JWT for every kind; the claim "typ" tells them apart. act.sub is the UUID of a service
# account; act.client_id is the SPIFFE ID if the client has that name. It has no chaining.
_KEYCLOAK = IssuerProfile(
    name="keycloak",
    typ=frozenset({"jwt", "at+jwt"}),
    actor=ActorForm.CLIENT_ID,
    required_claims=frozenset({"iat", "jti", "azp"}),
    payload_typ=frozenset({"Bearer", "DPoP"}),
    client_claim="azp",
    max_act_depth=1,
)
# Keycloak 26.7 issues no act: azp is the client that authenticated. jti begins with codes for session, kind and grant.
# A client acts for a user only in a token exchange (te) within a user's session; a client's own token is trrtcc, and a
# token exchanged for that is trrtte.
_KEYCLOAK_26_7 = replace(
    _KEYCLOAK,
    name="keycloak-26.7",
    actor=ActorForm.CLIENT,
    required_prefixes={"jti": frozenset({"ntrtte:", "onrtte:"})},
    refused_claims=frozenset({"client_id"}),  # a service account's token, which may have a session of its own
)
# Spring authorization server 7: no typ, scope as an array, act always {iss, sub}, no client_id in the token.
_SPRING = IssuerProfile(
    name="spring",
    typ=frozenset({None, "jwt", "at+jwt"}),
    actor=ActorForm.ISS_SUB,
    scope_shape="array",
    required_claims=frozenset({"iat", "jti"}),
    refused_claims=OTHER_KINDS,
)
_ZITADEL = IssuerProfile(
    name="zitadel",
    typ=frozenset({"jwt", "at+jwt"}),
    scope_claim="scp",
    scope_shape="either",
    required_claims=frozenset({"iat", "client_id"}),
    refused_claims=OTHER_KINDS,
)
# Entra emits no act. Facet 11 of xms_act_fct: azp is an agent identity. A user's sub differs for each resource, oid
# does not. An app token (idtyp) has no user: its oid is the agent itself. Facet 13 of xms_sub_fct: the subject is an
# agent's own user account, not a person.
_ENTRA = IssuerProfile(
    name="entra",
    typ=frozenset({"jwt"}),
    algorithms=frozenset({"RS256"}),
    actor=ActorForm.CLIENT_TABLE,
    scope_claim="scp",
    subject_claim="oid",
    required_claims=frozenset({"iat", "azp", "oid"}),
    required_values={"idtyp": frozenset({"user"})},
    required_members={"xms_act_fct": "11"},
    refused_members={"xms_sub_fct": frozenset({"11", "13"})},
    refused_claims=OTHER_KINDS,
    client_claim="azp",
    max_act_depth=1,
)
# draft-oauth-ai-agents-on-behalf-of-user-02, section 4.3: RFC 9068 is recommended, act required, azp as in its example.
# The user consents to one actor; there is no chain.
_OBO = IssuerProfile(
    name="obo-draft-02",
    typ=frozenset({"jwt", "at+jwt"}),
    required_claims=frozenset({"iat", "jti", "azp"}),
    refused_claims=OTHER_KINDS,
    client_claim="azp",
    max_act_depth=1,
)
# Login tokens of any OpenID provider: they name no actor and are accepted at an entry only.
_OIDC_ID_TOKEN = IssuerProfile(
    name="oidc-id-token",
    typ=frozenset({None, "jwt"}),
    required_claims=frozenset({"iat"}),
    refused_claims=frozenset({"events"}),
    payload_typ=frozenset({None, "ID"}),
    client_claim="azp",
)
_OIDC_ACCESS_TOKEN = IssuerProfile(
    name="oidc-access-token",
    typ=frozenset({None, "jwt", "at+jwt"}),
    scope_shape="either",
    refused_claims=OTHER_KINDS,
    payload_typ=frozenset({None, "Bearer"}),
    audience_claims=("azp", "client_id", "aud"),  # at an entry the token must have been issued to its OAuth client
    client_claim="azp",
)

PRESETS: Final[Mapping[str, IssuerProfile]] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _STS,
            _ACTOR_PROFILE,
            _KEYCLOAK,
            _KEYCLOAK_26_7,
            _SPRING,
            _ZITADEL,
            _ENTRA,
            _OBO,
            _OIDC_ID_TOKEN,
            _OIDC_ACCESS_TOKEN,
        )
    }
)
