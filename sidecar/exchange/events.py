"""Record fields of an exchange: the plan in our words, the issued token's claims once proven. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from delegation_core.errors import SidecarError
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Plan
from delegation_core.policy import Policy
from delegation_core.records.record import OK, RecordFields
from delegation_core.verify import VerifiedToken

if TYPE_CHECKING:
    from delegation_core.login import LoginPlan


def issued_fields(
    permit: IssuedPermit, *, adapter: str, exchange_ms: float, credential: str | None = None
) -> RecordFields:
    """Return the record keys of ``token.exchanged``: the issued token, and by ``jti_in`` the one it came from.

    ``adapter``: the adapter's name; ``credential``: the static credential used, as method and fingerprint.
    """
    issued, subject_token, crossing = permit.token, permit.plan.subject_token, permit.plan.crossing
    return {
        **_token_fields(issued),
        "exchange_ms": exchange_ms,
        "decision": "allow",
        "reason": OK,
        "actor": issued.actor_id,
        "audience": issued.audience,
        "scope": sorted(issued.scope),
        "scope_needed": sorted(permit.plan.scope),
        "route": permit.plan.route.name,
        "jti_in": None if subject_token is None else subject_token.jti,
        "jti_out": issued.jti,
        "parent_jti": issued.parent_jti,
        "crossed_from": None if crossing is None else crossing.issuer,
        "adapter": adapter,
        "credential": credential,
    }


def refused_fields(
    plan: Plan,
    policy: Policy,
    error: SidecarError,
    *,
    adapter: str,
    exchange_ms: float,
    credential: str | None = None,
) -> RecordFields:
    """Return the record keys of ``token.exchange_refused``: the request, without text from the token service.

    ``adapter`` and ``credential`` as in ``issued_fields``.
    """
    subject_token = plan.subject_token
    return {
        **({"direction": "outbound"} if subject_token is None else _token_fields(subject_token)),
        "exchange_ms": exchange_ms,
        "decision": "deny",
        "reason": error.reason,
        "detail": error.detail or None,
        "actor": policy.workload,
        "audience": plan.audience,
        "scope_needed": sorted(plan.scope),
        "route": plan.route.name,
        "jti_in": None if subject_token is None else subject_token.jti,
        "credential": credential,
        "adapter": adapter,
    }


def credential_of(shown: set[str]) -> str | None:
    """Return the record's ``credential`` for the static credentials sent (``client:WAY:FINGERPRINT``), or None."""
    return f"client:{','.join(sorted(one.removeprefix('client:') for one in shown))}" if shown else None


def refused_login_fields(
    plan: LoginPlan, error: SidecarError, *, adapter: str, exchange_ms: float, credential: str | None
) -> RecordFields:
    """Return the record keys of ``token.exchange_refused`` for a login, without a subject: the user is unknown."""
    return {
        "direction": "outbound",
        "exchange_ms": exchange_ms,
        "decision": "deny",
        "reason": error.reason,
        "detail": error.detail or None,
        "actor": plan.actor,
        "audience": plan.audience,
        "scope_needed": sorted(plan.scope),
        "route": plan.route.name,
        "credential": credential,
        "adapter": adapter,
    }


def _token_fields(token: VerifiedToken) -> RecordFields:
    return {
        "direction": "outbound",
        "subject": token.subject,
        "subject_iss": token.issuer,
        "chain": None if token.chain is None else list(token.chain.subjects),
        "chain_depth": None if token.chain is None else token.chain.depth,
        "client_id": token.client_id,
        "txn": token.txn,
        "fp": token.fingerprint,
        "verified": True,
    }
