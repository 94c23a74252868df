"""RFC 8693 token exchange for clients: token types, and re-exports of the request and response modules."""

from __future__ import annotations

from typing import Final

from delegation_core.token_request import (
    CLIENT_CREDENTIALS,
    GRANT_TYPE,
    MAX_REQUEST_BYTES,
    ClientCredentialsRequest,
    ExchangeRequest,
    build_client_credentials,
    build_exchange,
    client_credentials_form,
    exchange_form,
)
from delegation_core.token_response import (
    MAX_RESPONSE_BYTES,
    TokenResponse,
    parse_response,
    parse_token_answer,
)

__all__ = [
    "CLIENT_CREDENTIALS",
    "GRANT_TYPE",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "TOKEN_TYPE_ACCESS_TOKEN",
    "TOKEN_TYPE_ID_TOKEN",
    "TOKEN_TYPE_JWT",
    "TOKEN_TYPE_REFRESH_TOKEN",
    "ClientCredentialsRequest",
    "ExchangeRequest",
    "TokenResponse",
    "build_client_credentials",
    "build_exchange",
    "client_credentials_form",
    "exchange_form",
    "parse_response",
    "parse_token_answer",
]

# Token type identifiers (RFC 8693 section 3).
TOKEN_TYPE_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name, no secret
TOKEN_TYPE_ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - as above
TOKEN_TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - as above
TOKEN_TYPE_REFRESH_TOKEN: Final = "urn:ietf:params:oauth:token-type:refresh_token"  # noqa: S105 - as above
