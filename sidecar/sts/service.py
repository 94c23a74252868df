"""The token service without its sockets: one request in, one answer out, one record of it.

Theory of operation. A request arrives from a client whose X.509-SVID has been verified. Its two tokens are parsed,
their keys found (our own ring, the trust domain's bundle, the set of a user issuer or foreign token service; only the
last two may need a fetch), and the pure core in ``mint`` decides. Between requests only counters and verified
signatures are kept, so replicas that share keys and policy are one service. Policy and key ring are snapshots: each
request uses the ones it began with.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from delegation_core.bearer import MAX_TOKEN_BYTES, Bearer, parse_bearer
from delegation_core.checkpoint import Checkpoint, Head, parse_head
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.keyset import KeySet, VerificationKey
from delegation_core.revocation import Use
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, ClientCredentialsRequest, ExchangeRequest
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.token_endpoint import build_response, parse_token_request
from sidecar.sts.actors import ActorTokens
from sidecar.sts.authority import use_of
from sidecar.sts.keys import KeyRing
from sidecar.sts.mint import (
    ClientCertificate,
    FreshNames,
    Grant,
    authorize_exchange,
    authorize_self,
    require_lawful_form,
)
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import ExchangeRate
from sidecar.sts.records import EventLog, ExchangeRecord
from sidecar.sts.schedule import GRACE_S
from sidecar.sts.tokens import check_subject, verify_subject

if TYPE_CHECKING:
    from sidecar.sts.revocations import Register

_NAME_BYTES: Final = 16  # 128 bits


class JwtBundles(Protocol):
    """Source of JWT-SVID keys: an identity source."""

    @property
    def jwt_bundles(self) -> Mapping[TrustDomain, KeySet]:
        """The newest bundle of each trust domain."""
        ...


class Keys(Protocol):
    """Source of our own keys (``schedule.KeySchedule``)."""

    def at(self, now: int, *, keep_s: int) -> KeyRing:
        """Return the keys and their roles at ``now``; ``keep_s``: how long a token may be used once signed."""
        ...


class LoginKeys(Protocol):
    """Source of the keys of user issuers and foreign token services (``identity.jwks.IssuerKeys``)."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return a cached key; None if it is unknown."""
        ...

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        """Return the key after a fetch. Raises Denied UNKNOWN_KEY, Unavailable KEYS_UNAVAILABLE."""
        ...

    def ready(self, issuer: str) -> bool:
        """Return True if this issuer's key set is fresh enough and has a key."""
        ...

    def last_errors(self) -> Mapping[str, str | None]:
        """Errors of each issuer's newest fetch, by issuer; None where it succeeded."""
        ...


def fresh_names() -> FreshNames:
    """Make two names of 128 random bits, in hex: a base64 name could begin with a hyphen, like a command's option."""
    return FreshNames(jti=secrets.token_hex(_NAME_BYTES), txn=secrets.token_hex(_NAME_BYTES))


@dataclass(slots=True, kw_only=True)
class TokenService:
    """The token endpoint's logic. ``policy`` and ``keys`` may be replaced whole at any time."""

    policy: StsPolicy
    keys: Keys
    bundles: JwtBundles
    login_keys: LoginKeys
    log: EventLog
    rate: ExchangeRate
    actor_rate: ExchangeRate | None = None  # of all requests of one client
    clock: Callable[[], float] = time.time
    names: Callable[[], FreshNames] = field(default=fresh_names, repr=False)
    actors: ActorTokens = field(default_factory=ActorTokens, repr=False)
    register: Register | None = None  # None: nothing can be revoked here

    def current_ring(self) -> KeyRing:
        """Return the published keys, each in its role.

        Without a signer nothing is issued or countersigned (Unavailable NOT_READY).
        """
        return self.keys.at(self._now(), keep_s=self.policy.longest_life_s + GRACE_S)

    async def token(
        self,
        body: bytes,
        content_type: str | None,
        *,
        client: SpiffeId,
        record: ExchangeRecord,
        confirm: Callable[[], object] = lambda: None,
        certificate: ClientCertificate | None = None,
    ) -> dict[str, object]:
        """Answer one request of the authenticated ``client``. Returns the members of the response.

        ``confirm`` checks the client again once the key is found. ``certificate`` is the client's on this connection.

        Raises:
            SidecarError: the request is refused; the caller records it and answers by ``token_endpoint.build_error``.
        """
        if self.actor_rate is not None:
            self.actor_rate.take(client)
        policy, ring = self.policy, self.current_ring()
        request = parse_token_request(body, content_type)
        record.ask(request)
        if isinstance(request, ClientCredentialsRequest):
            self.rate.take(client)  # one counter for all targets, which the client could invent
            if self.register is not None:
                use = Use(None, client, frozenset(((policy.issuer, str(client)),)))
                self.register.seen.note(use)
                self.register.refuse(use, policy)
            grant = authorize_self(
                request,
                client=client,
                policy=policy,
                now=self._now(),
                fresh=self.names(),
                certificate=certificate,
            )
            return self._issue(grant, ring, record, issued_token_type=None)
        grant = await self._exchange(request, client, policy, ring, record, confirm, certificate)
        issued_token_type = request.requested_token_type or TOKEN_TYPE_ACCESS_TOKEN  # a JWT access token is both
        return self._issue(grant, ring, record, issued_token_type=issued_token_type)

    def countersign(self, body: bytes, content_type: str | None, *, client: SpiffeId) -> Checkpoint:
        """Sign the head of the client's record stream. Nothing is stored except its record.

        Raises:
            SidecarError: EXCHANGE_MALFORMED, OVERLOADED, AUDIT_UNAVAILABLE, or NOT_READY without a signing key.
        """
        head = parse_head(body, content_type)
        self.rate.take(("countersign", client))
        if not self.log.healthy:  # no await between here and the record
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, "the checkpoint could not be recorded")
        ring, policy = self.current_ring(), self.policy
        checkpoint = ring.active.countersign(head, issuer=policy.issuer, workload=client, at=self._now())
        self.log.event("records.countersigned", peer=client, checkpoint=f"run={head.run} {checkpoint.text()}")
        return checkpoint

    async def countersign_own(self, head: Head) -> Checkpoint:
        """Sign the head of our own record stream. Raises Unavailable NOT_READY without a SPIFFE ID or signing key."""
        if self.log.workload is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        key, issuer = self.current_ring().active, self.policy.issuer
        return key.countersign(head, issuer=issuer, workload=self.log.workload, at=self._now())

    async def _exchange(
        self,
        request: ExchangeRequest,
        client: SpiffeId,
        policy: StsPolicy,
        ring: KeyRing,
        record: ExchangeRecord,
        confirm: Callable[[], object],
        certificate: ClientCertificate | None,
    ) -> Grant:
        bearer = parse_bearer(request.subject_token)
        record.claim_unverified(bearer)
        actor_token = require_lawful_form(request, bearer.issuer, policy)
        actor = self.actors.verify(
            actor_token,
            client=client,
            bundles=self.bundles.jwt_bundles,
            audience=policy.issuer,
            now=self._now(),
        )
        check_subject(bearer, client=client, policy=policy)
        key = await self._key_of(bearer, policy, ring)
        confirm()
        if policy is not self.policy:  # it was replaced while the key was fetched
            policy = self.policy
            require_lawful_form(request, bearer.issuer, policy)
        now = self._now()
        subject = verify_subject(bearer, client=client, key=key, policy=policy, now=now)
        record.attribute(subject, foreign=subject.issuer in policy.foreign_issuers)
        self.rate.take((subject.issuer, subject.jti or subject.fingerprint, client))
        if self.register is not None:
            use = use_of(subject, client, policy)
            self.register.seen.note(use)
            self.register.refuse(use, policy)
        return authorize_exchange(
            request,
            actor=actor,
            subject=subject,
            policy=policy,
            now=now,
            fresh=self.names(),
            certificate=certificate,
        )

    async def _key_of(self, bearer: Bearer, policy: StsPolicy, ring: KeyRing) -> VerificationKey:
        if bearer.issuer != policy.issuer:
            known = self.login_keys.find(bearer.issuer, bearer.kid)
            return known or await self.login_keys.wait_for_key(bearer.issuer, bearer.kid)
        own = ring.find(bearer.kid)
        if own is None:
            raise Denied(Reason.UNKNOWN_KEY, "this service has no key with this kid")
        return own

    def _issue(
        self, grant: Grant, ring: KeyRing, record: ExchangeRecord, *, issued_token_type: str | None
    ) -> dict[str, object]:
        if not self.log.healthy:  # no await between here and the record: every issued token is recorded
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, "the exchange could not be recorded")
        token = ring.active.sign(grant.claims)
        if len(token) > MAX_TOKEN_BYTES:
            raise Denied(Reason.TOKEN_TOO_LARGE, "the issued token would be too large for every consumer")
        record.grant(grant, token)
        if self.register is not None:
            self.register.seen.note_issued(grant.claims)
        return build_response(
            access_token=token, expires_in=grant.expires_in, scope=grant.scope, issued_token_type=issued_token_type
        )

    def _now(self) -> int:
        return int(self.clock())
