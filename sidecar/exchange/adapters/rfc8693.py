"""Token exchange by RFC 8693: our own token service, and every other that follows the standard closely.

Options, for servers that differ:

- ``actor_token``: ``jwt-svid`` (ours), ``own-token`` (an access token of this very server, got by client credentials;
  Spring takes no other) or ``client`` (none is sent: the server names its authenticated client as the actor).
- ``target``: the parameter that names the target, ``audience`` or ``resource`` (RFC 8707).
- ``requested_token_type``: ``access_token``, ``jwt``, or ``none`` to leave it to the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.plan import Plan
from delegation_core.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_JWT,
    ClientCredentialsRequest,
    ExchangeRequest,
    client_credentials_form,
    exchange_form,
)
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted

_REQUESTED: Final[Mapping[str, str | None]] = {
    "access_token": TOKEN_TYPE_ACCESS_TOKEN,
    "jwt": TOKEN_TYPE_JWT,
    "none": None,
}


def exchange(wanted: Wanted) -> Steps:
    """Request the planned token (RFC 8693 section 2.1), with the actor token that the options choose."""
    plan, subject, options = wanted.plan, wanted.subject_token, wanted.options
    actor_token, actor_token_type = wanted.jwt_svid, TOKEN_TYPE_JWT
    if options["actor_token"] == "own-token":  # noqa: S105 - an option
        answer = yield Step(form=client_credentials_form(ClientCredentialsRequest()), shared=True)
        actor_token, actor_token_type = answer.token(scope=None).access_token, TOKEN_TYPE_ACCESS_TOKEN
    elif options["actor_token"] == "client":  # noqa: S105 - as above
        actor_token = None
    requested = _REQUESTED[options["requested_token_type"]]
    audience, resource = _target(plan, options)
    request = ExchangeRequest(
        subject_token=subject.raw,
        subject_token_type=wanted.subject_token_type,
        actor_token=actor_token,
        actor_token_type=None if actor_token is None else actor_token_type,
        requested_token_type=requested,
        audience=audience,
        resource=resource,
        scope=plan.scope,
    )
    answer = yield Step(form=exchange_form(request))
    return answer.token(scope=plan.scope, issued_token_type=requested or TOKEN_TYPE_ACCESS_TOKEN)


def own(wanted: Wanted) -> Steps:
    """Ask for our own token at one target (RFC 6749 section 4.4, RFC 8707 section 2)."""
    plan = wanted.plan
    request = ClientCredentialsRequest(audience=(plan.audience,), scope=plan.scope)
    answer = yield Step(form=client_credentials_form(request))
    return answer.token(scope=plan.scope)


def _target(plan: Plan, options: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return ((plan.audience,), ()) if options["target"] == "audience" else ((), (plan.audience,))


ADAPTER: Final = Adapter(
    name="rfc8693",
    capabilities=Capabilities(emits_act=True, nests_act=True, narrows=True, keeps_subject=True),
    client_auth=tuple(ClientAuth),
    exchange=exchange,
    own=own,
    options={
        "actor_token": ("jwt-svid", "own-token", "client"),
        "target": ("audience", "resource"),
        "requested_token_type": ("access_token", "jwt", "none"),
    },
    needs_jwt_svid=lambda options: options["actor_token"] == "jwt-svid",  # noqa: S105 - an option
)
