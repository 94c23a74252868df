"""Microsoft Entra Agent ID, on behalf of a user (preview, as documented in November 2026): no RFC 8693, no ``act``.

Two calls of one token endpoint. The blueprint, which has the credential, asks for a token of one of its agent
identities (``fmi_path``); with that token as client assertion the agent identity exchanges the user's token (OBO). The
actor is ``azp``, mapped by the profile ``entra``. Chains are not kept, so only an entry can use this adapter. ``own``
is not supported: a token for the agent itself names GUIDs of a directory instead of our SPIFFE ID.

Options:

- ``agent_id``: the client ID of the agent identity; our ``client_id`` is the blueprint's.
- ``scope``: ``named`` asks for each planned scope, as ``{audience}/{scope}``, ``default`` for ``{audience}/.default``.
  In both cases Entra may issue all scopes that were ever granted; the proof refuses a token wider than planned.
"""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.rfc8693 import CLIENT_CREDENTIALS, TOKEN_TYPE_ACCESS_TOKEN, TokenResponse
from delegation_core.scope import ScopeSet, format_scope
from sidecar.exchange.adapters.adapter import Adapter, Answer, Capabilities, ClientAuth, Step, Steps, Wanted

_EXCHANGE_SCOPE: Final = "api://AzureADTokenExchange/.default"
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def exchange(wanted: Wanted) -> Steps:
    """Ask as the blueprint for the agent identity's token, and with it for the planned one."""
    agent, plan = wanted.options["agent_id"], wanted.plan
    parent = yield Step(
        form=(("grant_type", CLIENT_CREDENTIALS), ("scope", _EXCHANGE_SCOPE), ("fmi_path", agent)), shared=True
    )
    named = plan.scope if wanted.options["scope"] == "named" else frozenset({".default"})
    answer = yield Step(
        form=(
            ("grant_type", _JWT_BEARER),
            ("client_id", agent),
            ("client_assertion_type", _ASSERTION),
            ("client_assertion", parent.token(scope=None).access_token),
            ("assertion", wanted.subject_token.raw),
            ("requested_token_use", "on_behalf_of"),
            ("scope", format_scope(frozenset(f"{plan.audience}/{scope}" for scope in named))),
        ),
        authenticate=False,  # the agent identity has no credential but the assertion
    )
    return _read(answer, plan.scope | named)


def _read(answer: Answer, names: ScopeSet) -> TokenResponse:
    """Read the answer. Its ``scope`` has the resource before each name, unlike the token's ``scp``."""
    response = answer.token(scope=None)
    for granted in response.scope or ():
        if not any(granted == name or granted.endswith(f"/{name}") for name in names):
            raise Denied(Reason.STS_SCOPE_WIDENED, "scope in the answer")
    return response


ADAPTER: Final = Adapter(
    name="entra-agent-id",
    capabilities=Capabilities(
        emits_act=False,
        nests_act=False,
        narrows=False,
        keeps_subject=True,
        several_steps=True,
        takes=frozenset({TOKEN_TYPE_ACCESS_TOKEN}),
    ),
    client_auth=(ClientAuth.JWT_SVID, ClientAuth.SECRET_POST),
    exchange=exchange,
    options={"agent_id": ("",), "scope": ("named", "default")},
    required_options=("agent_id",),
)
