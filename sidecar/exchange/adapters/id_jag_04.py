"""Identity assertion authorization grants (ID-JAG), by draft-ietf-oauth-identity-assertion-authz-grant-04.

Two steps at two servers: the server of the user's login (``idp``) exchanges the ID token for an ID-JAG, and the
authorization server of the target exchanges the ID-JAG for an access token. Only a login can start this, because an
access token is not a valid subject token. No actor token is sent, because the draft defines no meaning for it; the
client is the actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.rfc8693 import TOKEN_TYPE_ID_TOKEN, ExchangeRequest, exchange_form
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted
from sidecar.exchange.adapters.jwt_grant import NO_ACCESS_TOKEN, check_scope, parse_grant, present

IDP: Final = "idp"
ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
_TYP: Final = frozenset({"oauth-id-jag+jwt"})
_REQUIRED: Final = frozenset({"sub", "client_id", "jti", "exp", "iat"})  # besides iss and aud (section 3.1)


def exchange(wanted: Wanted) -> Steps:
    """Request an ID-JAG (section 4.3), and send it to the target's authorization server (section 4.4)."""
    plan, login = wanted.plan, wanted.subject_token
    request = ExchangeRequest(
        subject_token=login.raw,
        subject_token_type=wanted.subject_token_type,
        requested_token_type=ID_JAG,
        audience=(plan.sts_issuer,),
        resource=(plan.audience,),
        scope=plan.scope,
    )
    answer = yield Step(form=exchange_form(request), endpoint=IDP)
    raw = answer.token(scope=plan.scope, issued_token_type=ID_JAG, token_type=NO_ACCESS_TOKEN).access_token
    grant = parse_grant(raw, typ=_TYP, issuer=login.issuer, audience=plan.sts_issuer)
    _check(grant.claims, wanted)
    check_scope(grant.claims, plan.scope)
    answer = yield present(grant)
    return answer.token(scope=plan.scope)


def _check(claims: Mapping[str, object], wanted: Wanted) -> None:
    """Refuse an ID-JAG that is not for this user, this client and this target.

    The draft allows another ``sub`` than that of the ID token (section 5). The issued token would then name a user that
    cannot be compared, so the ID-JAG is refused before another server learns of it.
    """
    if not claims.keys() >= _REQUIRED:
        raise Denied(Reason.STS_BAD_RESPONSE, "the ID-JAG lacks a required claim")
    if claims["client_id"] != wanted.client_id:
        raise Denied(Reason.STS_ACTOR_MISMATCH, "the ID-JAG is for another client")
    if claims["sub"] != wanted.subject_token.subject:
        raise Denied(Reason.STS_SUBJECT_MISMATCH, "the ID-JAG names another user")
    target = wanted.plan.audience
    if claims.get("resource", target) not in (target, [target]):
        raise Denied(Reason.STS_AUDIENCE_MISMATCH, "the ID-JAG is for another resource")


ADAPTER: Final = Adapter(
    name="id-jag-04",
    capabilities=Capabilities(
        emits_act=False,
        nests_act=False,
        narrows=True,
        keeps_subject=False,
        several_steps=True,
        asks_login_issuer=True,
        takes=frozenset({TOKEN_TYPE_ID_TOKEN}),
    ),
    client_auth=tuple(ClientAuth),
    exchange=exchange,
    endpoints=(IDP,),
)
