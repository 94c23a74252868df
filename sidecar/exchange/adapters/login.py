"""Interface for dialects with a user's login: begun first, completed later.

Both halves are generators of steps, as pure as an exchange. ``begin`` returns the URL for the user's browser, or a code
that names the request at the token service. ``complete`` returns the token, or that the user has not answered yet. The
sidecar makes the random values and checks the answer from the browser: an adapter makes no ``state`` and never sees a
``state`` that does not match.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from delegation_core.login import LoginPlan
from delegation_core.rfc8693 import TokenResponse
from sidecar.exchange.adapters.step import Answer, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLogin:
    """One login, and our credentials. ``jwt_svid``: ours with the issuer as audience; set only for ``complete``.

    ``state`` and ``verifier`` are unguessable and belong to this login alone. ``authorization_endpoint`` is for a
    ``browser`` flow, with ``redirect_uri``, where the browser comes back. ``reason`` is for the user to read.
    """

    plan: LoginPlan
    client_id: str
    options: Mapping[str, str]
    reason: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)
    authorization_endpoint: str | None = None
    redirect_uri: str | None = None
    jwt_svid: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A login that waits for its user: at ``url`` in the browser, or elsewhere, until the token service answers for
    ``code``. Poll at most every ``poll_s``; the token service drops the login after ``expires_in_s`` (None: unknown).
    """

    url: str | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)
    poll_s: int | None = None
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True)
class StillPending:
    """The user has not answered yet. ``slower_s``: seconds to add to the poll interval."""

    slower_s: int = 0


Beginning: TypeAlias = Generator[Step, Answer, Started]
Completion: TypeAlias = Generator[Step, Answer, TokenResponse | StillPending]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFlow:
    """The two halves of a login. ``complete`` gets the authorization code if it is a ``browser`` flow, else None."""

    begin: Callable[[WantedLogin], Beginning]
    complete: Callable[[WantedLogin, Started, str | None], Completion]
    browser: bool
