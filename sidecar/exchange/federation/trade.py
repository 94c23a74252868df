"""A trade, the exchange of our identity for a provider's token, as the steps of a pure adapter.

An adapter yields each ``Ask`` and is sent the body of its answer, whose status was 200. It returns a ``Traded``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias
from urllib.parse import urlencode

from delegation_core.errors import Reason, Unavailable
from delegation_core.outside import FederatedKey
from delegation_core.strict_json import StrictJsonError, parse_object

MAX_ANSWER_BYTES: Final = 65_536
MAX_LIFE_S: Final = 43_200  # the longest that a provider here documents; more is no short-lived token
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - RFC 8693
TOKEN_TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105
_TOKEN: Final = re.compile(r"[!-~]{8,8192}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One POST of a trade."""

    url: str
    content_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Traded:
    """A provider's token, and the seconds that it lives from the moment of the request."""

    token: str = field(repr=False)
    life_s: int


Steps: TypeAlias = Generator[Ask, bytes, Traded]
Adapter: TypeAlias = Callable[[FederatedKey, str, float], Steps]  # the key, our JWT-SVID, wall time in seconds


def form(url: str, members: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Ask:
    """Make a step that sends an urlencoded form."""
    body = urlencode(members).encode("ascii")
    return Ask(url=url, content_type="application/x-www-form-urlencoded", body=body, headers=headers or {})


def document(url: str, members: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Ask:
    """Make a step that sends a JSON document."""
    return Ask(url=url, content_type="application/json", body=json.dumps(members).encode(), headers=headers or {})


def members_of(answer: bytes) -> dict[str, object]:
    """Read an answer's JSON object.

    Raises:
        Unavailable: CREDENTIAL_UNAVAILABLE: the answer is not a JSON object.
    """
    try:
        return parse_object(answer, max_bytes=MAX_ANSWER_BYTES)
    except StrictJsonError as error:
        raise trade_error(f"the answer is not acceptable JSON: {error}") from error


def oauth_token(answer: bytes) -> Traded:
    """Read the answer of an OAuth token endpoint (RFC 6749 section 5.1): a bearer token with ``expires_in``.

    Raises:
        Unavailable: CREDENTIAL_UNAVAILABLE: as ``members_of`` and ``traded``, or the token is not a bearer token.
    """
    members = members_of(answer)
    kind = members.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise trade_error("token_type is not Bearer")
    return check_trade(members.get("access_token"), members.get("expires_in"))


def check_trade(token: object, life_s: object) -> Traded:
    """Check the token and lifetime of an answer, and return them as the result of a trade.

    Raises:
        Unavailable: CREDENTIAL_UNAVAILABLE: no token, no lifetime, or a lifetime outside of 1 to ``MAX_LIFE_S``.
    """
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise trade_error("the answer holds no token")
    if isinstance(life_s, bool) or not isinstance(life_s, int):
        raise trade_error("the token has no expiry time")
    if not 0 < life_s <= MAX_LIFE_S:
        raise trade_error(f"the token's lifetime is not from 1 to {MAX_LIFE_S} s")
    return Traded(token, life_s)


def seconds_to(timestamp: object, now: float) -> int:
    """Return the seconds to an RFC 3339 time, rounded down.

    Raises:
        Unavailable: CREDENTIAL_UNAVAILABLE: ``timestamp`` is not such a time, or has no zone.
    """
    try:
        ends_at = datetime.fromisoformat(timestamp if isinstance(timestamp, str) else "")
    except ValueError:
        raise trade_error("the token has no expiry time") from None
    if ends_at.tzinfo is None:
        raise trade_error("the token's expiry time has no time zone")
    return int(ends_at.timestamp() - now)


def trade_error(why: str) -> Unavailable:
    """Make the error of a trade without a token. ``why`` is our own text; it quotes no answer."""
    return Unavailable(Reason.CREDENTIAL_UNAVAILABLE, f"the trade with the provider failed: {why}")
