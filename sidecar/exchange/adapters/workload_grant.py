"""Workload Authorization Grant, draft-carleton-workload-authz-grant-02 (November 2026): a workload for itself alone.

The grant is a JWT that names the workload, signed by the identity provider of the platform that hosts it (RFC 7523
section 2.1). Our grant is the JWT-SVID, signed by the trust domain. It names no user, so no token of a user is
exchanged: access on behalf of a user is outside that draft's scope.
"""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.scope import format_scope
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted
from sidecar.exchange.adapters.jwt_grant import JWT_BEARER


def exchange(_wanted: Wanted) -> Steps:
    """Refuse: this grant is only for the workload itself.

    Raises:
        Denied: STS_ERROR.
    """
    raise Denied(Reason.STS_ERROR, "a workload authorization grant cannot serve a user")


def own(wanted: Wanted) -> Steps:
    """Ask for our own token at one target, with our JWT-SVID as the grant and no client authentication."""
    plan = wanted.plan
    form = (
        ("grant_type", JWT_BEARER),
        ("assertion", wanted.jwt_svid or ""),
        ("resource", plan.audience),
        ("scope", format_scope(plan.scope)),
    )
    answer = yield Step(form=form, authenticate=False)
    return answer.token(scope=plan.scope)


ADAPTER: Final = Adapter(
    name="workload-authorization-grant-02",
    capabilities=Capabilities(emits_act=False, nests_act=False, narrows=True, keeps_subject=True, serves_users=False),
    client_auth=(ClientAuth.X509_SVID,),
    exchange=exchange,
    own=own,
    needs_jwt_svid=lambda _options: True,
)
