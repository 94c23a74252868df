"""Allow-list, by origin and path, for the push notification URLs that A2A callers give to an agent. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from delegation_core.errors import Denied, Reason
from delegation_core.target import canonical_target

_PORTS: Final = {"http": 80, "https": 443}
# Only forms that all URL parsers read alike: no user info, backslash, fragment or non-ASCII host.
_URL: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[!$-\[\]-~]*)?")


@dataclass(frozen=True, slots=True)
class PushUrl:
    """An origin and a path."""

    scheme: str
    host: str
    port: int
    path: str

    def covers(self, url: PushUrl) -> bool:
        """True if ``url`` has the same origin, and the same path or one below it."""
        below = self.path if self.path.endswith("/") else self.path + "/"
        same = (self.scheme, self.host, self.port) == (url.scheme, url.host, url.port)
        return same and (url.path == self.path or url.path.startswith(below))


def parse_push_url(text: str) -> PushUrl:
    """Parse a URL with lower-case scheme and host and a canonical path; drop its query.

    Raises:
        ValueError: any other text; the message completes "the URL ...".
    """
    if not _URL.fullmatch(text):
        raise ValueError("is not a URL such as https://hooks.example/a2a in lower case")
    parts = urlsplit(text)
    try:
        target = canonical_target(
            (parts.path or "/").encode("ascii") + (f"?{parts.query}".encode() if parts.query else b"")
        )
    except Denied as error:
        raise ValueError("has an ambiguous path") from error
    if target.path != (parts.path or "/"):
        raise ValueError("has a path that is not in canonical form")
    return PushUrl(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme], target.path)


def check_push_urls(operation: str, params: Mapping[str, object], allowed: Sequence[PushUrl]) -> None:
    """Refuse a message that sets up push notifications to a URL that ``allowed`` does not cover.

    Checks every member ``url`` or ``uri``, at any depth and in any spelling, in the params of
    CreateTaskPushNotificationConfig and in the configuration of a sent message, whose parts are content.

    Raises:
        Denied: PUSH_URL_REFUSED.
    """
    if operation == "CreateTaskPushNotificationConfig":
        searched: object = params
    elif operation in {"SendMessage", "SendStreamingMessage"}:
        searched = params.get("configuration")
    else:
        return
    for found in _urls(searched):
        if not _is_allowed(found, allowed):
            raise Denied(Reason.PUSH_URL_REFUSED, "push_urls of the route does not cover the URL")


def _is_allowed(found: object, allowed: Sequence[PushUrl]) -> bool:
    try:
        url = parse_push_url(found) if isinstance(found, str) else None
    except ValueError:
        return False
    return url is not None and any(one.covers(url) for one in allowed)


def _urls(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for name, member in value.items():
            if name.replace("_", "").casefold() in {"url", "uri"}:
                yield member
            else:
                yield from _urls(member)
    elif isinstance(value, list):
        for one in value:
            yield from _urls(one)
