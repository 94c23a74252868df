"""Step-up rules of a route: age and strength of the login of the user behind a chain (RFC 9470).

The token service carries ``auth_time`` and ``acr`` of the login token unchanged through the chain; ``issued`` proves
that. A token without valid values proves no fresh login.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from delegation_core.claims import time_claim
from delegation_core.errors import Denied, Reason
from delegation_core.verify import VerifiedToken

_ACR: Final = re.compile(r"[!#-\[\]-~]{1,256}")  # a challenge lists values in a quoted string, separated by spaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Human:
    """Login that a route requires: at most ``max_age_s`` ago (None: any age), with one of ``acr`` (empty: any).

    ``acr``: in order of preference.

    Raises:
        ValueError: neither is set, ``max_age_s`` is below 1, or an ``acr`` value is invalid.
    """

    max_age_s: int | None = None
    acr: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_age_s is None and not self.acr:
            raise ValueError("human needs max_age_s, acr, or both")
        if self.max_age_s is not None and self.max_age_s < 1:
            raise ValueError("max_age_s must be at least 1")
        for value in self.acr:
            require_acr(value)

    def check(self, token: VerifiedToken, now: int) -> None:
        """Check the login in the token's ``auth_time`` and ``acr``; repeated at each use of a cached permit.

        Raises:
            Denied: STEP_UP_REQUIRED.
        """
        if self.max_age_s is not None:
            auth_time = _auth_time(token)
            if auth_time is None:
                raise Denied(Reason.STEP_UP_REQUIRED, "the token has no valid auth_time")
            if auth_time > now + token.leeway_s:
                raise Denied(Reason.STEP_UP_REQUIRED, "auth_time is in the future")
            if now > auth_time + self.max_age_s:
                raise Denied(Reason.STEP_UP_REQUIRED, "the login is older than max_age_s")
        if self.acr and token.claims.get("acr") not in self.acr:
            raise Denied(Reason.STEP_UP_REQUIRED, "the token's acr is not one of the route's")

    def fresh_until(self, token: VerifiedToken) -> int | None:
        """Return the first second at which the login is too old; None without ``max_age_s`` or valid ``auth_time``."""
        auth_time = _auth_time(token)
        return None if self.max_age_s is None or auth_time is None else auth_time + self.max_age_s + 1

    @property
    def challenge(self) -> tuple[tuple[str, str], ...]:
        """Parameters of ``WWW-Authenticate`` for the required login (RFC 9470 section 3)."""
        age = () if self.max_age_s is None else (("max_age", str(self.max_age_s)),)
        return age + ((("acr_values", " ".join(self.acr)),) if self.acr else ())


def require_acr(value: str) -> None:
    """Check that ``value`` can be listed in ``acr_values``.

    Raises:
        ValueError: the value is not 1 to 256 printable ASCII characters without space, quotation mark and backslash.
    """
    if not _ACR.fullmatch(value):
        raise ValueError(
            "an acr value must be 1 to 256 printable characters without space, quotation mark and backslash"
        )


def _auth_time(token: VerifiedToken) -> int | None:
    try:
        auth_time = time_claim(token.claims, "auth_time")
    except Denied:
        return None
    return None if auth_time is None else int(auth_time)
