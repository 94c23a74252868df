"""One step of a conversation with a token service, and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from delegation_core.rfc8693 import TokenResponse, parse_token_answer
from delegation_core.scope import ScopeSet
from delegation_core.token_response import AnswerMembers, error_among, parse_answer

BEARER: Final = "Bearer"  # RFC 6750
TOKEN: Final = "token"  # noqa: S105 - the name of the endpoint that every token service has


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One POST of a form. The sidecar adds its client authentication, unless ``authenticate`` is False.

    ``shared``: the answer does not depend on any user or target, so it is kept for a while and used for others.
    ``once``: the form must not be sent twice (an authorization code).
    """

    form: tuple[tuple[str, str], ...] = field(repr=False)
    endpoint: str = TOKEN
    authenticate: bool = True
    shared: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of any status except a redirect."""

    status: int
    content_type: str | None
    body: bytes = field(repr=False)

    def token(
        self, *, scope: ScopeSet | None, issued_token_type: str | None = None, token_type: str = BEARER
    ) -> TokenResponse:
        """Parse the token: of the types given, with no scope beyond ``scope`` (None: not compared).

        Raises:
            SidecarError: EXCHANGE_DENIED, STS_ERROR, STS_UNAVAILABLE, STS_BAD_RESPONSE, STS_TOKEN_TYPE, STS_TOO_LARGE
                or STS_SCOPE_WIDENED. Nothing of the answer is quoted.
        """
        return parse_token_answer(
            self.status,
            self.content_type,
            self.body,
            scope=scope,
            issued_token_type=issued_token_type,
            token_type=token_type,
        )

    def members(self) -> AnswerMembers:
        """Parse a successful answer that holds no token.

        Raises:
            SidecarError: as ``token``.
        """
        return parse_answer(self.status, self.content_type, self.body)

    def error(self, known: frozenset[str]) -> str | None:
        """Return the error code of a refusal (400) if it is in ``known``, else None; ``token`` parses other answers."""
        return error_among(self.status, self.content_type, self.body, known)
