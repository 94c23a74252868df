"""Validity period of a token: exp, nbf and iat (RFC 7519 section 4.1), parsed once and checked at every use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from delegation_core.claims import time_claim
from delegation_core.errors import Denied, Reason

FIRST_TOKEN_LIFE_S: Final = 300
DELEGATION_LIFE_S: Final = 3600  # and not beyond the login token, unless the entry sets delegation_life_s


class Timed(Protocol):
    """A token, or only its times."""

    @property
    def expires_at(self) -> int: ...  # noqa: D102
    @property
    def not_before(self) -> int: ...  # noqa: D102
    @property
    def leeway_s(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Validity:
    """A token's times in whole seconds, rounded to a shorter life. ``not_before`` is the later of nbf and iat."""

    expires_at: int
    not_before: int
    issued_at: int | None
    leeway_s: int


def parse_validity(
    claims: Mapping[str, object], *, leeway_s: int, now: int, max_lifetime_s: int | None = None
) -> Validity:
    """Parse the times of a claim set. A token that lives longer than ``max_lifetime_s`` counts as expired.

    Raises:
        Denied: MALFORMED_TOKEN if exp is missing or one of the three is invalid; TOKEN_EXPIRED above the lifetime.
    """
    expires_at = time_claim(claims, "exp")
    if expires_at is None:
        raise Denied(Reason.MALFORMED_TOKEN, "the token has no exp")
    issued_at = time_claim(claims, "iat")
    not_before = time_claim(claims, "nbf")
    if max_lifetime_s is not None and expires_at - (now if issued_at is None else issued_at) > max_lifetime_s:
        raise Denied(Reason.TOKEN_EXPIRED, "the token's lifetime exceeds its issuer's limit")
    return Validity(
        expires_at=int(expires_at),
        not_before=math.ceil(max(issued_at or 0, not_before or 0)),
        issued_at=None if issued_at is None else int(issued_at),
        leeway_s=leeway_s,
    )


def check_times(token: Timed, now: int) -> None:
    """Check that the token is valid at ``now``; repeated at each use of a cached verdict.

    Raises:
        Denied: TOKEN_EXPIRED from ``exp + leeway`` on; TOKEN_NOT_YET_VALID before ``not_before - leeway``.
    """
    if now >= token.expires_at + token.leeway_s:
        raise Denied(Reason.TOKEN_EXPIRED, "exp has passed")
    if now < token.not_before - token.leeway_s:
        raise Denied(Reason.TOKEN_NOT_YET_VALID, "nbf or iat is in the future")
