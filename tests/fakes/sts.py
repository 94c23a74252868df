"""A small mesh from its token service's view: front (an entry) calls planner, planner writer, writer the CRM.

``Mesh`` makes lawful requests and the same ones with one fact changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final, Unpack
from urllib.parse import urlencode

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Denied, Reason
from delegation_core.keyset import KeySet, VerificationKey
from delegation_core.login_issuer import ScopeFrom
from delegation_core.profile import TrustedIssuer
from delegation_core.profile_presets import PRESETS
from delegation_core.records.record import RecordFields
from delegation_core.rfc8693 import GRANT_TYPE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.observe.metrics import Metrics
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts.mint import FreshNames
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import ExchangeRate, RateSettings
from sidecar.sts.records import ExchangeRecord
from sidecar.sts.rules import ANYONE, EntryWorkload, LoginIssuer, LoginKind, Rule, SelfRule, SubjectMatch, Target
from sidecar.sts.service import TokenService
from tests.fakes.tokens import (
    ABSENT,
    CRM,
    ISSUER,
    NOW,
    PLANNER,
    TRUST_DOMAIN,
    WRITER,
    SvidMint,
    TokenMint,
    changed,
)

LOGIN: Final = "https://login.acme.example"
OTHER_LOGIN: Final = "https://login.partner.example"
FRONT: Final = SpiffeId("spiffe://acme.example/agent/front")
STRANGER: Final = SpiffeId("spiffe://acme.example/agent/stranger")
PARTNER: Final = SpiffeId("spiffe://partner.example/agent/helper")
CRM_URL: Final = "https://crm.acme.example/mcp"
FORM: Final = "application/x-www-form-urlencoded"
ALICE: Final = SubjectMatch(LOGIN, "alice")
ALL_USERS: Final = SubjectMatch(LOGIN, ANYONE)

_KEY: Final = SigningKey.generate()


def scopes(text: str) -> frozenset[str]:
    return frozenset(text.split())


def trusted(issuer: str, profile: str = "oidc-id-token") -> TrustedIssuer:
    return TrustedIssuer(issuer=issuer, profile=PRESETS[profile], scopes=frozenset(), actor_trust_domains=frozenset())


def login_issuer(issuer: str = LOGIN, **changes: Any) -> LoginIssuer:
    worth = ScopeFrom(claim="groups", map={"staff": scopes("docs.read crm.read"), "sales": scopes("crm.write")})
    return replace(LoginIssuer(trusted=trusted(issuer), kind=LoginKind.ID_TOKEN, scope_from=worth), **changes)


def small_policy(**changes: Any) -> StsPolicy:
    policy: dict[str, Any] = {
        "issuer": ISSUER,
        "targets": (
            Target(workload=PLANNER, scopes=scopes("docs.read crm.read crm.write")),
            Target(workload=WRITER, scopes=scopes("docs.read crm.read")),
            Target(workload=CRM, audiences=frozenset({CRM_URL}), scopes=scopes("crm.read crm.write")),
        ),
        "rules": (
            Rule(actor=FRONT, subjects=frozenset({ALL_USERS}), audience=PLANNER, scopes=scopes("docs.read crm.read")),
            Rule(actor=PLANNER, subjects=frozenset({ALL_USERS}), audience=WRITER, scopes=scopes("docs.read crm.read")),
            Rule(actor=WRITER, subjects=frozenset({ALICE}), audience=CRM, scopes=scopes("crm.read")),
            Rule(actor=WRITER, subjects=frozenset({ALICE}), audience=CRM_URL, scopes=scopes("crm.read")),
        ),
        "self_rules": (SelfRule(workload=PLANNER, audience=CRM, scopes=scopes("crm.read")),),
        "entries": {FRONT: EntryWorkload(workload=FRONT, client_ids={LOGIN: "front-app"})},
        "login_issuers": {LOGIN: login_issuer()},
    }
    return StsPolicy(**{**policy, **changes})


class HeardEvents:
    """A record stream that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, RecordFields]] = []
        self.healthy = True
        self.workload: str | None = None
        self.metrics = Metrics()
        self.monotonic: Callable[[], float] = lambda: 1.5
        self._heard = asyncio.Event()

    def event(self, event: str, **fields: Unpack[RecordFields]) -> None:
        self.events.append((event, fields))
        self._heard.set()

    async def wait_for_events(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.events) < count:
                self._heard.clear()
                await self._heard.wait()


class LoginKeySets:
    """User issuers' keys. ``waited`` are the key ids that were awaited; ``late`` ones come only then.

    ``meanwhile`` runs during such a wait.
    """

    def __init__(self, keys: Mapping[str, KeySet], *, late: bool = False) -> None:
        self.keys = dict(keys)
        self.late = late
        self.waited: list[tuple[str, str | None]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        return None if self.late else self.keys[issuer].find(kid)

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        self.waited.append((issuer, kid))
        self.meanwhile()
        key = self.keys[issuer].find(kid)
        if key is None:
            raise Denied(Reason.UNKNOWN_KEY)
        return key

    def ready(self, issuer: str) -> bool:
        return issuer in self.keys

    def last_errors(self) -> Mapping[str, str | None]:
        return {issuer: None if issuer in self.keys else "the connection failed" for issuer in (LOGIN, *self.keys)}


@dataclass
class Bundles:
    """The JWT bundles of the trust domains."""

    jwt_bundles: Mapping[TrustDomain, KeySet]


@dataclass
class Mesh:
    """A token service with its mints. Each ``ask`` is one request, lawful unless changed."""

    policy: StsPolicy = field(default_factory=small_policy)
    ring: KeyRing = field(default_factory=lambda: KeyRing(_KEY))
    rate: RateSettings = field(default_factory=RateSettings)
    svids: SvidMint = field(default_factory=SvidMint)
    partner: SvidMint = field(default_factory=lambda: SvidMint(kid="p1", key=7))
    logins: TokenMint = field(default_factory=lambda: TokenMint(LOGIN, algorithm="RS256", kid="l1"))
    log: HeardEvents = field(default_factory=HeardEvents)
    start: int = NOW  # time of minting; the clock stays there until a test moves it

    def __post_init__(self) -> None:
        self.now: float = self.start
        self._numbers = count(1)
        self.login_keys = LoginKeySets({LOGIN: self.logins.keys, OTHER_LOGIN: self.logins.keys})
        self.service = TokenService(
            policy=self.policy,
            keys=self.ring,
            rate=ExchangeRate(self.rate, monotonic=lambda: self.now),
            bundles=Bundles({TRUST_DOMAIN: self.svids.keys, TrustDomain("partner.example"): self.partner.keys}),
            login_keys=self.login_keys,
            log=self.log,
            clock=lambda: self.now,
            names=self._names,
        )

    def own_claims(self, **changes: object) -> dict[str, object]:
        """Return the claims of writer's token: alice, by planner, by front."""
        lawful = {
            "iss": ISSUER,
            "sub": "alice",
            "aud": WRITER,
            "client_id": PLANNER,
            "scope": "docs.read crm.read",
            "iat": self.start - 10,
            "exp": self.start + 290,
            "jti": "jti-2",
            "parent_jti": "jti-1",
            "txn": "txn-1",
            "act": {"sub": PLANNER, "act": {"sub": FRONT}},
            "may_act": {"sub": WRITER},
            "sub_id": {"format": "iss_sub", "iss": LOGIN, "sub": "alice"},
            "auth_time": self.start - 60,
            "acr": "1",
        }
        return changed(lawful, changes)

    def own(self, **changes: object) -> str:
        """Return a token that this service issued, with these claims changed."""
        return self.ring.active.sign(self.own_claims(**changes))

    def login_claims(self, **changes: object) -> dict[str, object]:
        lawful = {
            "iss": LOGIN,
            "sub": "alice",
            "aud": "front-app",
            "groups": ["staff", "runners"],
            "iat": self.start - 10,
            "exp": self.start + 600,
            "auth_time": self.start - 60,
            "acr": "1",
        }
        return changed(lawful, changes)

    def login(self, **changes: object) -> str:
        """Return an ID token of alice's login at front, with these claims changed."""
        return self.logins.mint(self.login_claims(**changes), self.logins.header(typ="JWT"))

    def svid(self, spiffe_id: object, **changes: object) -> str:
        """Return a JWT-SVID for this service, with these claims changed."""
        lawful = {"sub": spiffe_id, "iat": self.start - 10, "exp": self.start + 290}
        return self.svids.mint(self.svids.claims(**{**lawful, **changes}))

    def exchange_form(self, client: SpiffeId = WRITER, **changes: object) -> dict[str, object]:
        """Return writer's request for a token at the CRM.

        An ``ABSENT`` parameter is left out; a list is sent repeatedly.
        """
        lawful = {
            "grant_type": GRANT_TYPE,
            "subject_token": self.own(),
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "actor_token": self.svid(client),
            "actor_token_type": TOKEN_TYPE_JWT,
            "requested_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "audience": CRM,
            "scope": "crm.read",
        }
        return changed(lawful, changes)

    def login_form(self, client: SpiffeId = FRONT, **changes: object) -> dict[str, object]:
        """Return front's request for a token at planner, with alice's login token."""
        lawful = {
            "subject_token": self.login(),
            "subject_token_type": TOKEN_TYPE_ID_TOKEN,
            "audience": PLANNER,
            "scope": "docs.read crm.read",
        }
        return self.exchange_form(client, **{**lawful, **changes})

    async def ask(
        self,
        form: Mapping[str, object],
        client: SpiffeId = WRITER,
        confirm: Callable[[], object] = lambda: None,
    ) -> dict[str, object]:
        """Send one request; return the response's members. Raises what the service raises."""
        record = ExchangeRecord(self.log, ISSUER)
        return await self.service.token(encoded(form), FORM, client=client, record=record, confirm=confirm)

    async def claims_for(self, form: Mapping[str, object], client: SpiffeId = WRITER) -> Mapping[str, object]:
        """Return the claims of the issued token."""
        answer = await self.ask(form, client)
        token = answer["access_token"]
        assert isinstance(token, str)
        return parse_bearer(token).claims

    def _names(self) -> FreshNames:
        number = next(self._numbers)
        return FreshNames(jti=f"new-jti-{number}", txn=f"new-txn-{number}")


def encoded(form: Mapping[str, object]) -> bytes:
    return urlencode({name: value for name, value in form.items() if value is not ABSENT}, doseq=True).encode()
