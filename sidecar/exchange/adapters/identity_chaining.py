"""Identity chaining across domains, by draft-ietf-oauth-identity-chaining-17.

Two steps at two servers: the authorization server of our own domain (``home``) exchanges the inbound token for a JWT
authorization grant, and the one of the target's domain exchanges the grant for an access token. Both may rewrite
claims, so only the issued token is verified.

Options:

- ``target``: the parameter that names the second server at the first, ``audience`` or ``resource``.
- ``scope``: ``both`` servers get the scopes, or only the ``last``, if the first does not know them.
- ``home_issuer``: the issuer of the grants; if empty, the issuer of the inbound token.
"""

from __future__ import annotations

from typing import Final

from delegation_core.rfc8693 import TOKEN_TYPE_JWT, ExchangeRequest, exchange_form
from delegation_core.scope import format_scope
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted
from sidecar.exchange.adapters.jwt_grant import NO_ACCESS_TOKEN, check_scope, parse_grant, present

HOME: Final = "home"
# RFC 7523 names no type; its successor names the last. An access token is none: it must not become a grant.
_TYP: Final = frozenset({None, "jwt", "authorization-grant+jwt"})


def exchange(wanted: Wanted) -> Steps:
    """Request a grant at home (section 2.3), and send it to the target's authorization server (section 2.4)."""
    plan, subject, options = wanted.plan, wanted.subject_token, wanted.options
    by_audience, at_both = options["target"] == "audience", options["scope"] == "both"
    request = ExchangeRequest(
        subject_token=subject.raw,
        subject_token_type=wanted.subject_token_type,
        requested_token_type=TOKEN_TYPE_JWT,
        audience=(plan.sts_issuer,) if by_audience else (),
        resource=() if by_audience else (plan.sts_issuer,),
        scope=plan.scope if at_both else None,
    )
    answer = yield Step(form=exchange_form(request), endpoint=HOME)
    scope = plan.scope if at_both else None
    raw = answer.token(scope=scope, issued_token_type=TOKEN_TYPE_JWT, token_type=NO_ACCESS_TOKEN).access_token
    issuer = options["home_issuer"] or subject.issuer
    grant = parse_grant(raw, typ=_TYP, issuer=issuer, audience=plan.sts_issuer)
    if at_both:
        check_scope(grant.claims, plan.scope)
    answer = yield present(grant, ("resource", plan.audience), ("scope", format_scope(plan.scope)))
    return answer.token(scope=plan.scope)


ADAPTER: Final = Adapter(
    name="identity-chaining",
    capabilities=Capabilities(emits_act=True, nests_act=True, narrows=True, keeps_subject=False, several_steps=True),
    client_auth=tuple(ClientAuth),
    exchange=exchange,
    options={"target": ("audience", "resource"), "scope": ("both", "last"), "home_issuer": ("",)},
    endpoints=(HOME,),
)
