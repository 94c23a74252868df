"""Table of logins that wait for their users. Each is bound to the browser session that began it, and expires.

A look-up needs name and session; the session is stored as a SHA-256 hash. Names, states and verifiers are unguessable;
no login outlives the process. Count and bytes are bounded: over a bound a new login is refused, because an eviction
would end another user's login.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from math import ceil
from typing import Final

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.login import LoginPlan
from sidecar.exchange.login_conversation import MAX_STARTED_BYTES, Begun, started_bytes
from sidecar.exchange.sts_settings import ExchangeSettings
from sidecar.proxy.journeys.random_text import random_258

MAX_LOGINS: Final = 4096
MAX_BYTES: Final = 16 * 1024 * 1024  # of all logins: MAX_LOGINS with a URL of 2 KiB each
LOGIN_BYTES: Final = 2048  # of a login without its URL or code: 1.1 KiB, and a reason of 200 characters
LIFE_S: Final = 600.0  # of a login by redirect: the usual life of a code and its consent page
MAX_LIFE_S: Final = 1800.0  # upper bound on the lifetime that a token service states
TOLD_S: Final = 600.0  # after its expiry a login stays in the table, so that its end can be reported
FIRST_POLL_S: Final = 5  # RFC 8628 section 3.2


class Phase(Enum):
    """The state of a login."""

    BEGINNING = auto()
    OPEN = auto()
    ASKING = auto()  # a poll of the token service is in flight
    REDEEMING = auto()  # a code was sent to the token service, once
    OVER = auto()


@dataclass(slots=True, kw_only=True)
class PendingLogin:
    """A login. ``ends_at`` and ``poll_at`` are monotonic seconds; ``begun`` is None in phases BEGINNING and OVER.

    ``settings``: the settings of its token service when it began.
    """

    name: str
    session: bytes = field(repr=False)
    plan: LoginPlan
    settings: ExchangeSettings
    ends_at: float
    phase: Phase = Phase.BEGINNING
    begun: Begun | None = None
    held_bytes: int = LOGIN_BYTES + MAX_STARTED_BYTES  # while it begins: the upper bound
    poll_s: int = FIRST_POLL_S
    poll_at: float = 0.0

    def end(self) -> None:
        """End the login and drop its verifier, state and code."""
        self.phase, self.begun, self.held_bytes = Phase.OVER, None, LOGIN_BYTES


class PendingLogins:
    """Pending logins of this process, at most ``most`` and ``max_bytes``. ``monotonic`` returns seconds."""

    def __init__(self, *, monotonic: Callable[[], float], most: int = MAX_LOGINS, max_bytes: int = MAX_BYTES) -> None:
        self._monotonic = monotonic
        self.most = most
        self.max_bytes = max_bytes
        self._logins: dict[str, PendingLogin] = {}

    def __len__(self) -> int:
        return len(self._logins)

    @property
    def alive(self) -> int:
        """Number of logins that are neither over nor expired."""
        return sum(map(self._is_alive, self._logins.values()))

    @property
    def bytes(self) -> int:
        """Accounted bytes of all logins."""
        return sum(one.held_bytes for one in self._logins.values())

    def reserve(self, session: str, plan: LoginPlan, settings: ExchangeSettings) -> PendingLogin:
        """Add and return a login in phase BEGINNING. Drops ended and expired logins if the table is full.

        Raises:
            Unavailable: OVERLOADED, the bound on logins or on their bytes is reached.
        """
        self._sweep()
        login = PendingLogin(
            name=random_258(), session=_hash(session), plan=plan, settings=settings, ends_at=self._monotonic() + LIFE_S
        )
        if not self._has_room(login):
            self._logins = {name: one for name, one in self._logins.items() if self._is_alive(one)}
        if not self._has_room(login):
            raise Unavailable(Reason.OVERLOADED, "too many logins are pending")
        self._logins[login.name] = login
        return login

    def open(self, login: PendingLogin, begun: Begun) -> None:
        """Move a begun login to OPEN, and end the session's other begun logins for the same route."""
        for other in self._logins.values():
            same = other.session == login.session and other.plan.route.name == login.plan.route.name
            if same and other is not login and other.phase is not Phase.BEGINNING:
                other.end()
        login.begun, login.phase = begun, Phase.OPEN
        login.held_bytes = LOGIN_BYTES + started_bytes(begun.started)
        now, started = self._monotonic(), begun.started
        if started.expires_in_s is not None:
            login.ends_at = now + min(started.expires_in_s, MAX_LIFE_S)
        login.poll_s = started.poll_s or FIRST_POLL_S
        login.poll_at = now + login.poll_s

    def drop(self, login: PendingLogin) -> None:
        """Remove a login that failed to begin."""
        self._logins.pop(login.name, None)

    def find(self, name: str, session: str) -> PendingLogin:
        """Return the login of this name and session if it has begun and is not over.

        Raises:
            Denied: LOGIN_UNKNOWN, LOGIN_SESSION_MISMATCH, LOGIN_USED, LOGIN_EXPIRED.
        """
        login = self._logins.get(name)
        if login is None or login.phase is Phase.BEGINNING or self._is_forgotten(login):
            raise Denied(Reason.LOGIN_UNKNOWN)
        if not hmac.compare_digest(login.session, _hash(session)):
            raise Denied(Reason.LOGIN_SESSION_MISMATCH)
        if login.phase in (Phase.REDEEMING, Phase.OVER):
            raise Denied(Reason.LOGIN_USED)
        if self._monotonic() >= login.ends_at:
            login.end()
            raise Denied(Reason.LOGIN_EXPIRED)
        return login

    def wait_longer(self, login: PendingLogin, slower_s: int = 0) -> None:
        """Move a login back to OPEN, add ``slower_s`` to its poll interval, schedule a poll. No-op if it is over."""
        if login.phase is Phase.OVER:
            return
        login.phase = Phase.OPEN
        login.poll_s += slower_s
        login.poll_at = self._monotonic() + login.poll_s

    def may_ask(self, login: PendingLogin) -> bool:
        """Return True if the login is OPEN and its next poll is due."""
        return login.phase is Phase.OPEN and self._monotonic() >= login.poll_at

    def rest_s(self, login: PendingLogin) -> int:
        """Return the whole seconds until the login expires, at least 0."""
        return max(0, int(login.ends_at - self._monotonic()))

    def poll_after_s(self, login: PendingLogin) -> int:
        """Return the seconds until the next poll is due, rounded up, at least 1."""
        return max(1, ceil(login.poll_at - self._monotonic()))

    def _has_room(self, login: PendingLogin) -> bool:
        return len(self._logins) < self.most and self.bytes + login.held_bytes <= self.max_bytes

    def _is_alive(self, login: PendingLogin) -> bool:
        return login.phase is not Phase.OVER and self._monotonic() < login.ends_at

    def _sweep(self) -> None:
        self._logins = {name: one for name, one in self._logins.items() if not self._is_forgotten(one)}

    def _is_forgotten(self, login: PendingLogin) -> bool:
        return self._monotonic() >= login.ends_at + TOLD_S


def _hash(session: str) -> bytes:
    return sha256(session.encode("utf-8", "surrogatepass")).digest()
