"""Recognises secrets by the form of a value, for any name: headers, URLs, connection strings, signed tokens."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from delegation_audit.credentials.decoys import is_drawn, is_words, words
from delegation_audit.credentials.kinds import Kind

LONG_LIFE_S: Final = 24 * 3600
_MIN_QUERY: Final = 12
_MIN_PASSWORD: Final = 6
_PASSWORDS: Final = "password", "passwd", "pwd"
_MAX_QUERY: Final = 64

_BASIC: Final = re.compile(
    r"(?:Authorization\s*[:=]\s*)?[\"']?Basic\s+([A-Za-z0-9+/_-]{8,}={0,2})[\"']?", re.IGNORECASE
)
_BEARER: Final = re.compile(
    r"(?:(?:Authorization|X-Api-Key|X-Auth-Token)\s*[:=]\s*)?[\"']?(?:Bearer|Token|ApiKey|Api-Key)\s+"
    r"([A-Za-z0-9._~+/=-]{12,})[\"']?",
    re.IGNORECASE,
)
_MODEL: Final = re.compile(r"sk-[A-Za-z0-9_-]{32,256}")  # OpenAI's form, which many compatible providers adopted
_JWT: Final = re.compile(r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,})\.(eyJ[A-Za-z0-9_-]{4,})\.([A-Za-z0-9_-]{16,})")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+]{1,20}://[^\s'\"<>`]{4,2048}")
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9+]+)://([^/?#]*)")
_QUERY_NAMES: Final = re.compile(
    r"(?:x[-_])?(?:(?:api|app|access|auth|secret|subscription|license)[-_]?key|(?:api|access|auth|refresh|private)[-_]?token"
    r"|token|key|sig|secret|(?:client|app|api)[-_]?secret|hapikey)",
    re.IGNORECASE,
)
_DOCUMENTED: Final = frozenset(("John Doe", "supabase-demo", "payload"))  # claims of tokens in documentation
_PAIRS: Final = re.compile(
    r"(?<![A-Za-z])(AccountKey|SharedAccessKey|Password|Pwd)\s{0,2}=\s{0,2}([^;\s'\"]{6,256})", re.IGNORECASE
)
_CONNECTION: Final = re.compile(
    r"(?:Server|Data Source|Host|Endpoint|DefaultEndpointsProtocol|AccountName|User Id|Uid|Database|dbname)\s{0,2}=",
    re.I,
)
_DATABASES: Final = words(
    "postgres postgresql mysql mariadb mongodb redis rediss mssql sqlserver oracle cockroachdb clickhouse"
    " cassandra neo4j bolt influxdb couchdb db2 snowflake redshift"
)


class Form(NamedTuple):
    """A recognised form. ``kind`` is None for a token that is no credential: short-lived, expired or an example."""

    kind: Kind | None
    secret: str
    expires: str | None = None
    target: str | None = None
    encoded: str = ""  # the secret as the value spells it, if encoded


def recognise(value: str, *, now: int) -> Form | None:
    """Recognise the form of a value; None for any other value. ``now``: Unix time, for the expiry of tokens."""
    basic = _BASIC.fullmatch(value.strip())
    if basic is not None:
        return _parse_basic(basic[1])
    token = _JWT.search(value)
    if token is not None:
        return _judge_jwt(token, now)
    bearer = _BEARER.fullmatch(value.strip())
    if bearer is not None:
        drawn = any(map(str.isdigit, bearer[1])) and any(map(str.isalpha, bearer[1]))
        return Form(Kind.BEARER_TOKEN, bearer[1]) if drawn else None
    if _MODEL.fullmatch(value.strip()) and any(map(str.isdigit, value)):
        return Form(Kind.MODEL_PROVIDER_KEY, value.strip())
    return _parse_urls(value) or _parse_connection_string(value)


def _parse_basic(encoded: str) -> Form | None:
    try:
        user, colon, password = base64.b64decode(encoded, altchars=b"-_", validate=False).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    printable = colon and user and password and f"{user}{password}".isprintable()
    return Form(Kind.BASIC_CREDENTIALS, password, encoded=encoded) if printable else None


def _judge_jwt(token: re.Match[str], now: int) -> Form | None:
    """Judge a JWT by its claims; None if they cannot be parsed. A token without ``exp`` never expires."""
    claims = _claims(token[2])
    if claims is None or _DOCUMENTED.intersection(map(str, claims.values())):
        return None if claims is None else Form(None, token[0])  # an example of documentation
    end, begin = _seconds(claims.get("exp")), _seconds(claims.get("iat")) or _seconds(claims.get("nbf"))
    if end is None:
        cluster = claims.get("iss") == "kubernetes/serviceaccount"
        return Form(Kind.KUBERNETES_TOKEN if cluster else Kind.BEARER_TOKEN, token[0])
    if end <= now or end - (now if begin is None else begin) <= LONG_LIFE_S:
        return Form(None, token[0])
    return Form(Kind.BEARER_TOKEN, token[0], date_of(end))


def _claims(part: str) -> dict[str, object] | None:
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _seconds(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        return None
    return int(value)


def date_of(seconds: int) -> str:
    """Return the UTC date of a Unix time, as YYYY-MM-DD."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _parse_urls(value: str) -> Form | None:
    """Return the first secret in the URLs of a value, a password before the host or a key in the query; or None."""
    for url in _URL.finditer(value):
        found = _parse_authority(url[0]) or _parse_query(url[0])
        if found is not None:
            return found
    return None


def _parse_authority(url: str) -> Form | None:
    parts = _AUTHORITY.match(url)
    if parts is None:
        return None
    user, at, host = parts[2].rpartition("@")
    _, colon, password = user.partition(":")
    if not at or not colon or not password:
        return None
    kind = Kind.DATABASE_PASSWORD if parts[1].lower().split("+")[0] in _DATABASES else Kind.BASIC_CREDENTIALS
    return Form(kind, unquote(password), target=host, encoded=password)


def _parse_query(url: str) -> Form | None:
    query = url.partition("?")[2].partition("#")[0]
    parts = _AUTHORITY.match(url)
    database = parts is not None and parts[1].lower().split("+")[0] in _DATABASES
    for name, secret in parse_qsl("&".join(query.split("&")[:_MAX_QUERY])):
        host = None if parts is None else parts[2].rpartition("@")[2]  # a user name may be a token
        if name.lower() in _PASSWORDS and secret and (database or (len(secret) >= _MIN_PASSWORD and is_drawn(secret))):
            return Form(
                Kind.DATABASE_PASSWORD if database else Kind.PASSWORD, secret, target=None if database else host
            )
        name = name.removeprefix("amp;")  # of HTML and XML
        if _QUERY_NAMES.fullmatch(name) and len(secret) >= _MIN_QUERY and is_drawn(secret) and not is_words(secret):
            kind = Kind.OAUTH_CLIENT_SECRET if name.lower().startswith("client") else Kind.API_KEY
            return Form(Kind.AZURE_KEY if name == "sig" else kind, secret, target=host)
    return None


def _parse_connection_string(value: str) -> Form | None:
    if not _CONNECTION.search(value):
        return None
    pair = _PAIRS.search(value)
    if pair is None:
        return None
    azure = pair[1].lower() in ("accountkey", "sharedaccesskey")
    return Form(Kind.AZURE_KEY if azure else Kind.DATABASE_PASSWORD, pair[2])
