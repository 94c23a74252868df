"""Agent Authorization Grant: draft-rosenberg-oauth-aauth, draft-patwhite-aauth-00 (dormant). No browser takes part.

The token service asks the user by a channel of its own. It is polled as in the device grant (RFC 8628), always at the
token endpoint in the settings, even if its answer names another one. Its tokens need not name an actor: then only a
profile with ``actor: client-table`` (or ``client``) proves the actor, and with other profiles they are refused. Option
``target`` as in ``obo``.
"""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step
from sidecar.exchange.adapters.login import Beginning, Completion, Started, StillPending, UserFlow, WantedLogin

AGENT_AUTHORIZATION: Final = "agent_authorization"
MAX_CODE_CHARS: Final = 2048  # of a request_code, which waits here with its login; a random one has about 50
SLOWER_S: Final = 5  # RFC 8628 section 3.5
_GRANT: Final = "urn:ietf:params:oauth:grant-type:agent_authorization"
_DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_ANSWERS: Final = frozenset({"authorization_pending", "slow_down", "access_denied", "expired_token"})


def begin(wanted: WantedLogin) -> Beginning:
    """Request the user's approval (section 4.1)."""
    form = (
        ("grant_type", _GRANT),
        ("scope", " ".join(sorted(wanted.plan.scope))),
        ("reason", wanted.reason),
        *((("resource", wanted.plan.audience),) if wanted.options["target"] == "resource" else ()),
    )
    answer = yield Step(form=form, endpoint=AGENT_AUTHORIZATION, once=True)  # or the user would be asked twice
    members = answer.members()
    return Started(
        code=members.text("request_code", max_chars=MAX_CODE_CHARS),
        poll_s=members.seconds("poll_interval"),
        expires_in_s=members.seconds("expires_in"),
    )


def complete(wanted: WantedLogin, started: Started, _code: str | None) -> Completion:
    """Poll for the user's answer (section 4.3)."""
    # An answer with a token consumes the code (RFC 8628 section 3.5), and asking twice at once is asking too often.
    answer = yield Step(form=(("grant_type", _DEVICE_CODE), ("device_code", started.code or "")), once=True)
    match answer.error(_ANSWERS):
        case "authorization_pending":
            return StillPending()
        case "slow_down":
            return StillPending(SLOWER_S)
        case "access_denied":
            raise Denied(Reason.LOGIN_DENIED, "access_denied")
        case "expired_token":
            raise Denied(Reason.LOGIN_EXPIRED, "expired_token")
    return answer.token(scope=wanted.plan.scope)


ADAPTER: Final = Adapter(
    name="agent-grant-draft",
    capabilities=Capabilities(emits_act=False, nests_act=False, narrows=True, keeps_subject=True, needs_user=True),
    client_auth=tuple(ClientAuth),
    login=UserFlow(begin=begin, complete=complete, browser=False),
    options={"target": ("resource", "none")},
    endpoints=(AGENT_AUTHORIZATION,),
    discovered={AGENT_AUTHORIZATION: "agent_authorization_endpoint"},
)
