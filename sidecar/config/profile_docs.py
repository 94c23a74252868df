"""Text of the page of issuer profiles: each preset with all its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from delegation_core.profile import MAX_LEEWAY_S, ActorForm, IssuerProfile
from delegation_core.profile_presets import PRESETS

_HEAD: Final = f"""\
A profile states the form of one issuer's tokens: their type, the claims that name user, client, actor and scopes, and
what else must be there. Settings give each issuer one (`issuers[].profile`, `entry.issuers[].profile`); nothing in a
token ever selects it. A preset can be changed key by key:

```yaml
profile: {{preset: spring, leeway_s: 5, max_lifetime_s: 3600, required_claims: [txn]}}
```

Every token needs `iss`, `aud`, `exp` and the claim that names the user besides the claims below, and a signature of an
asymmetric algorithm by a key of its issuer. `leeway_s` is at most {MAX_LEEWAY_S}: where clocks differ by more, tokens
are refused. An issued token must not outlive the one it came from, whatever the profile says.

An issuer of **delegated tokens** must name an actor. The `oidc-…` presets are for **logins**: at an entry only, without
an actor.
"""
_ABOUT: Final[Mapping[str, str]] = {
    "sts": "Our own token service, and others whose tokens follow RFC 9068 and name the actor in `act.sub`.",
    "actor-profile-01": "Token services that follow draft-mcguinness-oauth-actor-profile-01, as ours does with that"
    " `profile`. An actor is the pair of `act.iss` and `act.sub`, and a refused actor gets `actor_unauthorized`.",
    "keycloak": "Keycloak with delegation (26.8): `act` names a client, which has our SPIFFE ID as its name.",
    "keycloak-26.7": "Keycloak up to 26.7: no `act`; `azp` is the agent if `jti` tells of an exchange for a user.",
    "spring": "Spring Authorization Server 7: `act` is always `iss` and `sub`, scopes are a list, tokens have no type.",
    "zitadel": "A zitadel/oidc provider whose hook writes `act`.",
    "entra": "Microsoft Entra Agent ID: no `act`; `azp` is the agent if facet 11 says so. Read only, never run.",
    "obo-draft-02": "A server where users agree to an agent: `act` names it, `azp` the client, and there is no chain.",
    "oidc-id-token": "ID tokens of any OpenID provider, at an entry.",
    "oidc-access-token": "JWT access tokens of any OpenID provider, at an entry.",
}
_ACTOR: Final[Mapping[ActorForm, str]] = {
    ActorForm.SUB: "`act.sub` is its SPIFFE ID",
    ActorForm.ISS_SUB: "`act.sub` is its SPIFFE ID, and `act.iss` the issuer (or `act_iss`)",
    ActorForm.CLIENT_ID: "`act.client_id` is its SPIFFE ID",
    ActorForm.TABLE: "`act.iss` and `act.sub`, looked up in `actor_table`",
    ActorForm.CLIENT: "the client's name is its SPIFFE ID; one actor, no chain",
    ActorForm.CLIENT_TABLE: "the client's name, looked up in `actor_table`; one actor, no chain",
}


def profile_page() -> Iterator[str]:
    """Yield the lines of the page."""
    yield _HEAD
    for name, profile in PRESETS.items():
        yield from (f"## {name}", "", _ABOUT.get(name, ""), "", "| property | value |", "| --- | --- |")
        yield from (f"| {title} | {text} |" for title, text in _rows(profile) if text)
        yield ""


def _rows(profile: IssuerProfile) -> Iterator[tuple[str, str]]:
    login = profile.name.startswith("oidc-")
    yield "header `typ`", _words(profile.typ)
    yield "claim `typ`", "" if profile.payload_typ is None else _words(profile.payload_typ)
    yield "algorithms", _words(profile.algorithms)
    yield "user", _words((profile.subject_claim,))
    yield "actor (`actor`)", "none" if login else _ACTOR[profile.actor]
    yield "client", _words((profile.client_claim,))
    yield "scopes", f"{_words((profile.scope_claim,))}, {_shape(profile)}"
    yield "audience", _words(profile.audience_claims, " or else ")
    yield "required claims", _words(profile.required_claims)
    yield (
        "required values",
        ", ".join(f"`{claim}`: {_words(values)}" for claim, values in profile.required_values.items()),
    )
    yield (
        "required prefixes",
        ", ".join(f"`{claim}`: {_words(starts, ' or ')}" for claim, starts in profile.required_prefixes.items()),
    )
    yield "required members", ", ".join(f"`{one}` in `{claim}`" for claim, one in profile.required_members.items())
    yield (
        "refused members",
        ", ".join(f"{_words(words)} in `{claim}`" for claim, words in profile.refused_members.items()),
    )
    yield "refused claims", _words(profile.refused_claims)
    yield "most actors", "" if login else str(profile.max_act_depth)
    yield "`leeway_s`", str(profile.leeway_s)
    yield "`max_lifetime_s`", "not limited" if profile.max_lifetime_s is None else str(profile.max_lifetime_s)


def _shape(profile: IssuerProfile) -> str:
    return {"string": "text with spaces", "array": "a list", "either": "text with spaces, or a list"}[
        profile.scope_shape
    ]


def _words(values: Iterable[str | None], between: str = ", ") -> str:
    found = list(values) if isinstance(values, tuple) else sorted(values, key=lambda one: one or "")
    return between.join("absent" if one is None else f"`{one}`" for one in found)
