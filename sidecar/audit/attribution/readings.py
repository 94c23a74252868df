"""Extracts the identities in one line of an access log: the user, the actor, the OAuth client. Pure.

Common and combined log format have one name, the user's. JSON has arbitrary fields; only a closed list of names, and
the operator's own, count. A ``User-Agent`` identifies nobody: every caller writes its own. Nor does an OAuth client: it
obtained the token, and another party may carry it (RFC 8693 section 4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from sidecar.audit.records import is_login
from sidecar.delegation.jws import TOKEN_PATTERN
from sidecar.delegation.strict_json import StrictJsonError, parse_object

# Apache's vhost_combined has "name:port" in front. Every part is bounded, so that no line takes long.
_COMMON: Final = re.compile(
    r"(?:\S{1,255}:\d{1,5} )?\S{1,255} \S{1,255} (?P<user>.{1,255}?) \[[^\]]{1,64}\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" \d{3} \S+'
)
_CREDENTIAL: Final = re.compile(rf"(?i:(?:bearer|basic|digest|negotiate|dpop) |eyJ)|{TOKEN_PATTERN}")
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")  # RFC 9110 section 9.1; longer ones may be tokens
_USERINFO: Final = re.compile(r"\A(https?://)[^/]*@", re.IGNORECASE)
_USER_AGENT: Final = re.compile(r"[^/\s]+/\d|.*\s")

USER_FIELDS: Final = (
    "sub", "subject", "user", "username", "user_name", "user_id", "userid", "remote_user", "auth_user", "authuser",
    "auth", "principal", "enduser.id", "user.id", "user.name", "user.username", "user.email", "email", "clientusername",
)  # fmt: skip
# ECS and Kubernetes separate the performer from the owner of the rights, the other way round from a token.
EFFECTIVE_USER_FIELDS: Final = ("user.effective.id", "user.effective.name", "impersonateduser.username")
ACTOR_FIELDS: Final = (
    "act.sub", "act.client_id", "act", "actor", "actor.sub", "actor.id", "actor_id", "acting_party", "agent",
    "agent_id", "agent.id", "agent.name", "agent_name", "gen_ai.agent.id", "gen_ai.agent.name", "delegation_actor",
)  # fmt: skip
CLIENT_FIELDS: Final = ("client_id", "clientid", "client", "azp", "appid", "oauth_client", "client.id")
_METHODS: Final = ("method", "request_method", "http.request.method", "verb", "requestmethod")
_PATHS: Final = ("path", "uri", "request_uri", "url.path", "url", "requesturi", "requestpath")
_MAX_FIELDS: Final = 512


class NoRequestError(ValueError):
    """The line is no readable request. The message never quotes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The identities in a request's line. ``request`` is its method and path, without the query, for display only."""

    user: str | None = None
    actor: str | None = None
    client: str | None = None
    request: str | None = None
    ours: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """JSON field names that count besides the built-in ones: lower case, with dots for nesting."""

    user: Sequence[str] = ()
    actor: Sequence[str] = ()


def named_by(line: bytes, fields: Fields) -> Named | None:
    """Return the identities in a line; None for one of our records that describes no request.

    Raises:
        NoRequestError: it is neither common or combined log format nor a JSON object.
    """
    if line.lstrip().startswith(b"{"):
        try:
            members = parse_object(line, max_bytes=1 << 20)
        except StrictJsonError as error:
            raise NoRequestError(str(error)) from error
        return _ours(members) if {"event", "run", "seq"} <= members.keys() else _foreign(members, fields)
    match = _COMMON.match(line.decode("utf-8", "backslashreplace"))
    if match is None:
        raise NoRequestError("neither common log format nor JSON")
    method, _, target = match["request"].partition(" ")
    user = match["user"]
    return Named(
        user=None if user in {"-", '""'} else user, request=_request(method, target.rpartition(" ")[0] or target)
    )


def _ours(record: Mapping[str, object]) -> Named | None:
    """Read one of our records: only verified claims identify anybody."""
    if record.get("event") != "request" or is_login(*map(record.get, ("direction", "op", "path"))):
        return None
    known = record.get("verified") is True
    return Named(
        user=_text(record.get("subject")) if known else None,
        actor=_text(record.get("actor")) if known else None,
        client=_text(record.get("client_id")) if known else None,
        request=_request(_text(record.get("method")), _text(record.get("path"))),
        ours=True,
        refused=record.get("decision") == "deny",
    )


def _foreign(members: Mapping[str, object], fields: Fields) -> Named:
    flat = dict(_flattened(members))
    actor = _first(flat, (*fields.actor, *(name for name in ACTOR_FIELDS if not _is_user_agent(flat.get(name)))))
    user = _first(flat, (*fields.user, *USER_FIELDS))
    effective = _first(flat, EFFECTIVE_USER_FIELDS)
    if effective is not None and not fields.user:
        user, actor = effective, actor or user
    request = _request(_first(flat, _METHODS), _first(flat, _PATHS))
    client = _first(flat, CLIENT_FIELDS)
    return Named(user=user, actor=actor, client=None if _is_address(client) else client, request=request)


def _flattened(members: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return every text and number of a JSON object under its dotted, lower-case name."""
    for name, value in list(members.items())[:_MAX_FIELDS]:
        key = f"{prefix}{name}".lower()
        if isinstance(value, str) and not _CREDENTIAL.match(value):  # a token is no name and must not be displayed
            yield key, value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, str(value)
        elif isinstance(value, dict):
            yield from _flattened(value, f"{key}.")


def _first(flat: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((flat[name] for name in names if flat.get(name) not in {None, "", "-"}), None)


def _is_user_agent(value: str | None) -> bool:
    """Tell if a field such as ``agent`` holds a User-Agent, as in the log formats of several servers."""
    return value is not None and not value.startswith("spiffe://") and _USER_AGENT.match(value) is not None


def _is_address(value: str | None) -> bool:
    """Tell if a field such as ``client`` holds the network address of a request."""
    try:
        ip_address(value or "")
    except ValueError:
        return False
    return True


def _request(method: str | None, target: str | None) -> str | None:
    """Return method and path.

    Query and user info may hold secrets and are dropped, as is anything that is no method.
    """
    if method is not None and not _METHOD.fullmatch(method):
        method = None
    path = _USERINFO.sub(r"\1", (target or "").partition("?")[0])
    words = [word for word in (method, path) if word]
    return " ".join(words) or None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
