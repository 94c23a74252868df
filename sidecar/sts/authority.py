"""The authority that a verified subject token gives the client: delegated by us, delegated by another token service, or
from a user's login at the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from delegation_core.claims import audience_values
from delegation_core.errors import Denied, Reason
from delegation_core.login_issuer import LoginKind, UserIssuer, spellings
from delegation_core.revocation import Use
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.validity import DELEGATION_LIFE_S
from delegation_core.verify import VerifiedToken
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rules import ForeignIssuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The subject, limits and end of an authority.

    ``issuer`` and ``subject`` are the pair that rules match: the user's own, or the foreign issuer's. The issued token
    has ``issued_subject`` and ``sub_id``, and ends by ``expires_at``. ``txn`` is None where a chain starts.
    ``audiences`` limits where the authority counts; None: any. ``own``: a workload started the chain for itself.
    """

    issuer: str
    subject: str
    issued_subject: str
    sub_id: tuple[str, str] | None
    scope: ScopeSet
    expires_at: int
    txn: str | None
    audiences: frozenset[str] | None = None
    own: bool = False


def authority_of(token: VerifiedToken, *, client: SpiffeId, policy: StsPolicy, now: int) -> Authority:
    """Return the authority that this token gives ``client``.

    Raises:
        Denied: NOT_YOUR_TOKEN, the token was issued to another client; NOT_AN_ENTRY, the client may not start a chain
            with this token; TOKEN_EXPIRED, TOKEN_TYPE, DELEGATION_NOT_ALLOWED, SELF_DELEGATION, MALFORMED_TOKEN.
    """
    if token.expires_at <= now:  # the leeway of verification is for differing clocks, not for minting new tokens
        raise Denied(Reason.TOKEN_EXPIRED, "the subject token has expired")
    if token.issuer == policy.issuer:
        return _read_delegated(token, client=client, policy=policy, now=now)
    if token.issuer in policy.foreign_issuers:
        return _foreign(token, client=client, policy=policy, now=now)
    return _login(token, client=client, policy=policy, now=now)


def use_of(token: VerifiedToken, client: SpiffeId, policy: StsPolicy) -> Use:
    """Return the use of a token by ``client``. Its subject gets the name that a token issued here would have."""
    login, foreign = policy.login_issuers.get(token.issuer), policy.foreign_issuers.get(token.issuer)
    names = {login.subject_prefix + token.subject} if login is not None else set()
    if foreign is not None:
        names.add(foreign.crossing.subject(token.subject))
    return Use(token, client, frozenset((policy.issuer, name) for name in names))


def login_issuer_for(
    client: SpiffeId, issuer: str, policy: StsPolicy, claims: Mapping[str, object] | None = None
) -> UserIssuer:
    """Return the user issuer if ``client`` may exchange its login tokens.

    With ``claims`` whose only audience is the entry's door, the result expects tokens for that door.

    Raises:
        Denied: NOT_AN_ENTRY, the client is no entry for this issuer; NOT_YOUR_TOKEN, an ID token at a door;
            MALFORMED_TOKEN, ``aud`` is of another type.
    """
    entry = policy.entries.get(client)
    if entry is None or issuer not in entry.client_ids:
        raise Denied(Reason.NOT_AN_ENTRY, "the client is not an entry for this user issuer")
    login = policy.login_issuers[issuer].for_client(entry.client_ids[issuer])
    audiences = [] if claims is None else audience_values(claims)
    if entry.door is None or len(audiences) != 1 or audiences[0] not in spellings(entry.door):
        return login
    if login.kind is not LoginKind.ACCESS_TOKEN:
        raise Denied(Reason.NOT_YOUR_TOKEN, "a door accepts no ID tokens")
    return login.at_door(entry.door)


def foreign_issuer_for(client: SpiffeId, issuer: str, policy: StsPolicy) -> ForeignIssuer:
    """Return the foreign issuer if ``client`` may exchange its tokens.

    Raises:
        Denied: DELEGATION_NOT_ALLOWED, the client is not listed for this issuer.
    """
    foreign = policy.foreign_issuers[issuer]
    if client not in foreign.actors:
        raise Denied(Reason.DELEGATION_NOT_ALLOWED, "the client may not present tokens of this foreign issuer")
    return foreign


def _read_delegated(token: VerifiedToken, *, client: SpiffeId, policy: StsPolicy, now: int) -> Authority:
    if token.audience not in policy.audiences_of(client):
        raise Denied(Reason.NOT_YOUR_TOKEN, "the subject token is for another audience")
    own = _is_workloads(token, policy)
    if own and token.subject == client:
        raise Denied(Reason.SELF_DELEGATION, "the client started this chain itself")
    if token.chain is None and not (own and policy.self_delegations_of(token.subject, client)):
        raise Denied(Reason.NOT_AN_ENTRY, "a token of this service without act cannot start a chain")
    # The sub_id of a foreign subject is evidence. It must match no rule for our own users, also not
    # after the foreign issuer was removed or its prefix changed.
    issuer, subject = policy.foreign_pair(token.subject) or _login_pair(token, policy) or (token.issuer, token.subject)
    return Authority(
        issuer=issuer,
        subject=subject,
        issued_subject=token.subject,
        sub_id=token.sub_id,
        scope=token.scope,
        expires_at=min(token.expires_at, now + policy.token_life_s),
        txn=token.txn,
        own=own,
    )


def _login_pair(token: VerifiedToken, policy: StsPolicy) -> tuple[str, str] | None:
    """Return the login behind a subject: ``sub_id``, if its issuer's prefix and ``sub`` give exactly this subject."""
    if token.sub_id is None:
        return None
    login = policy.login_issuers.get(token.sub_id[0])
    made = None if login is None else login.subject_prefix + token.sub_id[1]
    return token.sub_id if made == token.subject else None


def _is_workloads(token: VerifiedToken, policy: StsPolicy) -> bool:
    """Return True if a workload started the chain for itself: no user or foreign subject has such a name."""
    return token.sub_id is None and token.subject.startswith("spiffe://") and policy.foreign_pair(token.subject) is None


def _foreign(token: VerifiedToken, *, client: SpiffeId, policy: StsPolicy, now: int) -> Authority:
    """Return the authority of another token service's delegated token, translated by the crossing."""
    foreign = foreign_issuer_for(client, token.issuer, policy)
    if token.audience not in policy.audiences_of(client):
        raise Denied(Reason.NOT_YOUR_TOKEN, "the subject token is for another audience")
    if token.chain is None or token.subject in {token.actor_id, token.chain.current.subject}:
        raise Denied(Reason.NOT_AN_ENTRY, "a foreign token without delegation cannot start a chain here")
    if token.actor_id is None:
        raise Denied(Reason.DELEGATION_NOT_ALLOWED, "the foreign issuer may not speak for this actor")
    if token.actor_id == client:
        raise Denied(Reason.SELF_DELEGATION, "the client is already the current actor")
    sub_id = token.sub_id or (token.issuer, token.subject)
    if "sub_id" in token.claims and token.claims["sub_id"] != sub_id_claim(sub_id):
        raise Denied(
            Reason.MALFORMED_TOKEN, "sub_id is not a plain iss_sub pair, so the issued token could not keep it"
        )
    return Authority(
        issuer=token.issuer,
        subject=token.subject,
        issued_subject=foreign.crossing.subject(token.subject),
        sub_id=sub_id,
        scope=foreign.crossing.worth(token.scope),
        expires_at=min(token.expires_at, now + policy.token_life_s),
        txn=token.txn,
        audiences=foreign.actors[client],
    )


def sub_id_claim(pair: tuple[str, str]) -> dict[str, str]:
    """Return the claim that names a subject by its issuer and ``sub`` (RFC 9493 section 3.2.3)."""
    issuer, sub = pair
    return {"format": "iss_sub", "iss": issuer, "sub": sub}


def _login(token: VerifiedToken, *, client: SpiffeId, policy: StsPolicy, now: int) -> Authority:
    user_issuer = login_issuer_for(client, token.issuer, policy, token.claims)
    if not user_issuer.issued_for_us(token, token.claims):
        raise Denied(Reason.NOT_YOUR_TOKEN, "the login token was issued to another OAuth client")
    if token.chain is not None:  # only we vouch for actors
        raise Denied(Reason.TOKEN_TYPE, "the login token names an actor")
    issued_subject = user_issuer.mesh_subject(token.subject)
    if issued_subject.lower().startswith("spiffe:"):
        raise Denied(Reason.DELEGATION_NOT_ALLOWED, "the user's subject looks like a workload")
    return Authority(
        issuer=token.issuer,
        subject=token.subject,
        issued_subject=issued_subject,
        sub_id=(token.issuer, token.subject),
        scope=user_issuer.scope_from.worth(token.claims),
        expires_at=_last_expiry(token, policy.entries[client].delegation_life_s, now),
        txn=None,
    )


def _last_expiry(token: VerifiedToken, delegation_life_s: int | None, now: int) -> int:
    """Return the latest expiry of a chain's first token; most expire sooner (``EntryWorkload.first_life_s``)."""
    if delegation_life_s is None:
        return min(token.expires_at, now + DELEGATION_LIFE_S)
    return now + delegation_life_s
