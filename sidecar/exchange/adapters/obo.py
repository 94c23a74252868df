"""draft-oauth-ai-agents-on-behalf-of-user-02: the authorization code grant, in which a user agrees to one named actor.

The authorization request names us as ``requested_actor``, and the code is bound to that: only an ``actor_token`` of
ours redeems it. PKCE (S256) binds the code to this login. Option ``target``: ``resource`` (RFC 8707) names the audience
in both requests; with ``none`` the server knows it from the scope.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urlsplit

from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step
from sidecar.exchange.adapters.login import Beginning, Completion, Started, UserFlow, WantedLogin


def begin(wanted: WantedLogin) -> Beginning:
    """Build the URL of the authorization request (section 4.1). Sends nothing."""
    yield from ()
    endpoint = _required(wanted.authorization_endpoint)
    request = {
        "response_type": "code",
        "client_id": wanted.client_id,
        "redirect_uri": _required(wanted.redirect_uri),
        "scope": " ".join(sorted(wanted.plan.scope)),
        "state": wanted.state,
        "code_challenge": _challenge(wanted.verifier),
        "code_challenge_method": "S256",
        "requested_actor": str(wanted.plan.actor),
        **_target(wanted),
    }
    return Started(url=f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(request)}")


def complete(wanted: WantedLogin, _started: Started, code: str | None) -> Completion:
    """Redeem the code, once, with our actor token (section 4.2)."""
    form = {
        "grant_type": "authorization_code",
        "client_id": wanted.client_id,
        "code": _required(code),
        "code_verifier": wanted.verifier,
        "redirect_uri": _required(wanted.redirect_uri),
        "actor_token": _required(wanted.jwt_svid),
        **_target(wanted),
    }
    answer = yield Step(form=tuple(form.items()), once=True)
    return answer.token(scope=wanted.plan.scope)


def _challenge(verifier: str) -> str:
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode("ascii")


def _target(wanted: WantedLogin) -> dict[str, str]:
    return {"resource": wanted.plan.audience} if wanted.options["target"] == "resource" else {}


def _required(value: str | None) -> str:
    if value is None:
        raise ValueError("the sidecar gives a browser flow its endpoint, redirect URI, code and JWT-SVID")
    return value


ADAPTER: Final = Adapter(
    name="obo-draft-02",
    capabilities=Capabilities(emits_act=True, nests_act=False, narrows=True, keeps_subject=True, needs_user=True),
    client_auth=tuple(ClientAuth),
    login=UserFlow(begin=begin, complete=complete, browser=True),
    options={"target": ("resource", "none")},
    needs_jwt_svid=lambda _options: True,
)
