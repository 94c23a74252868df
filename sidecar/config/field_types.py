"""Types of settings: each states its accepted values in its schema and in its error message.

Validators raise ``ValueError("what is wrong; the fix")`` and never quote the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from delegation_core.connect import parse_tunnel
from delegation_core.human import require_acr
from delegation_core.push_urls import parse_push_url
from delegation_core.route_checks import require_method, require_path
from delegation_core.scope import ScopeError, parse_scope
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.config.addresses import parse_address, parse_origin, parse_url
from sidecar.exchange.failover import MAX_REPLICAS
from sidecar.identity.workload_settings import parse_address as parse_workload_address

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED: Final = frozenset({"none", "other"})  # the metrics' names of no route, and of an unknown one
_NOT_YET: Final = "is not available yet; remove it"


def _checked(check: Callable[[str], object], fix: str = "") -> AfterValidator:
    """Make a validator that keeps the text if ``check`` accepts it. ``fix`` completes a message of another room."""

    def validate(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            message = str(error)
            raise ValueError(f"{message.replace('; ', ', ')}; {fix}" if fix else message) from None
        return text

    return AfterValidator(validate)


def _one_scope(text: str) -> None:
    try:
        scopes = parse_scope(text)
    except ScopeError:
        scopes = frozenset()
    if len(scopes) != 1:
        raise ValueError("is not exactly one scope; write one per list item")


def _route_name(text: str) -> None:
    if not _NAME.fullmatch(text) or text in _RESERVED:
        raise ValueError(
            "is not a name; use 1 to 64 letters, digits, dots, dashes and underscores, but not none or other"
        )


def _line(text: str) -> None:
    if not text or len(text) > 2048 or not text.isprintable():
        raise ValueError("is empty, too long or holds unprintable characters; write 1 to 2048 printable ones")


def _file(text: str) -> None:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("is not an absolute path; write one that starts with a slash")


def _day(text: str) -> None:
    try:
        is_day = date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_day = False
    if not is_day:
        raise ValueError("is not a date; write it as YYYY-MM-DD")


def start_of(day: str) -> int:
    """Return 00:00 UTC of a ``Day``, in seconds since the epoch."""
    return int(datetime.combine(date.fromisoformat(day), time(), UTC).timestamp())


def _host(text: str) -> None:
    if parse_origin(f"https://{text}").netloc != text or text.lower() != text:
        raise ValueError("is not a host; write its lower-case name, with the port if that is not 443")


def one_of(names: Iterable[str]) -> tuple[AfterValidator, WithJsonSchema]:
    """Return annotations for a text that must be one of ``names``."""
    choices = list(map(str, names))

    def validate(text: str) -> str:
        if text not in choices:
            raise ValueError(f"has an unknown value; write one of {', '.join(choices)}")
        return text

    return AfterValidator(validate), WithJsonSchema({"type": "string", "enum": choices})


def _refuse(value: object) -> object:
    if value is not None:
        raise ValueError(_NOT_YET)
    return value


def _later(*words: str) -> BeforeValidator:
    """Return a validator that refuses these prefixes as not yet available: a later release will accept them."""

    def validate(value: object) -> object:
        if isinstance(value, str) and value.startswith(words):
            raise ValueError(_NOT_YET)
        return value

    return BeforeValidator(validate)


def _schema(pattern: str, example: str | None = None) -> WithJsonSchema:
    """Return the schema of a text. ``example`` must fit every key of the type, so paths and URLs have none."""
    return WithJsonSchema({"type": "string", "pattern": pattern, **({"examples": [example]} if example else {})})


SpiffeIdText = Annotated[
    str,
    _checked(SpiffeId, "write spiffe://trust-domain/path"),
    _schema(r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$", "spiffe://acme.example/agent/planner"),
]
TrustDomainText = Annotated[
    str, _checked(TrustDomain, "write the name alone, such as acme.example"), _schema("^[a-z0-9._-]+$", "acme.example")
]
ScopeText = Annotated[str, _checked(_one_scope), _schema(r"^[!#-\[\]-~]+$", "docs.read")]
AcrText = Annotated[str, _checked(require_acr, "write one per list item"), _schema(r"^[!#-\[\]-~]{1,256}$", "phr")]
RouteName = Annotated[str, _checked(_route_name), _schema(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", "search")]
MethodText = Annotated[str, _checked(require_method, "write such as GET"), _schema("^[A-Z][A-Z-]{0,31}$", "GET")]
UrlText = Annotated[str, _checked(parse_url), _schema("^https?://")]
TokenEndpoints = Annotated[list[UrlText], Field(min_length=1, max_length=MAX_REPLICAS)]
PushUrlText = Annotated[
    str,
    _checked(parse_push_url, "write origin and path, without a query"),
    _schema("^https?://", "https://hooks.acme.example/a2a"),
]
OriginText = Annotated[str, _checked(parse_origin), _schema(r"^https?://[^/]+/?$")]
AddressText = Annotated[str, _checked(parse_address), _schema(r"^.+:[0-9]{1,5}$", "127.0.0.1:7080")]
SocketText = Annotated[
    str,
    _checked(parse_workload_address, "write unix:///path/of/socket"),
    _schema("^(unix:///|tcp://)", "unix:///spiffe-workload-api/spire-agent.sock"),
]
FileText = Annotated[str, _checked(_file), _schema("^/")]
Line = Annotated[str, _checked(_line), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 2048})]
PathText = Annotated[
    Line, _checked(partial(require_path, prefix=False), "write it as it is served"), _schema("^/", "/search")
]
PrefixText = Annotated[
    Line, _checked(partial(require_path, prefix=True), "write it as it is served"), _schema("^/", "/crm")
]
Day = Annotated[
    str,
    _checked(_day),
    _schema(r"^\d{4}-\d\d-\d\d$", "2027-03-31"),
]
Hosts = Annotated[
    list[Annotated[str, _checked(_host), _schema(r"^[a-z0-9.-]+(:[0-9]{1,5})?$", "api.openai.com")]],
    BeforeValidator(lambda value: [] if value is False else value),  # earlier releases wrote false for none
]
TunnelText = Annotated[
    str, _checked(parse_tunnel), _schema(r"^([a-z0-9._-]+|\[[0-9a-f:.]+\]):[0-9]{1,5}$", "api.example:443")
]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
StreamField = Annotated[
    bool,
    Field(
        description=(
            "requests and answers may stay open: they need no minimum rate, and end after `stream_idle_timeout_s` of "
            "silence in both directions; calls of gRPC need no setting"
        )
    ),
]
DeadlineField = Annotated[
    Seconds | None,
    Field(description="the longest time for a call, from its head to its end; a shorter `grpc-timeout` ends it sooner"),
]

Reserved = Annotated[SkipJsonSchema[None], BeforeValidator(_refuse)]  # a key that a later release will accept
Protocol = Annotated[Literal["http", "mcp", "a2a", "grpc"], _later("a2a-", "jsonrpc")]
TokenWay = Literal["exchange", "self", "login"]

KeyField = Literal["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token", "private-token"]
KeyScheme = Literal["Bearer", "token"]
RequestField = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
