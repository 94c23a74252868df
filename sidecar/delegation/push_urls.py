"""URLs that callers of A2A give an agent for its push notifications: an allow-list, by origin and path. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sidecar.delegation.target import canonical_target
from sidecar.errors import Denied, Reason

_PORTS: Final = {"http": 80, "https": 443}
# What every parser of URLs reads alike: no user info, no backslash, no fragment, no name in another script.
_URL: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[!$-\[\]-~]*)?")


@dataclass(frozen=True, slots=True)
class PushUrl:
    """An origin, and a path that ends with a segment or a slash."""

    scheme: str
    host: str
    port: int
    path: str

    def covers(self, url: PushUrl) -> bool:
        """True if a URL has the same origin, and this path or one below it."""
        below = self.path if self.path.endswith("/") else self.path + "/"
        same = (self.scheme, self.host, self.port) == (url.scheme, url.host, url.port)
        return same and (url.path == self.path or url.path.startswith(below))


def parse_push_url(text: str) -> PushUrl:
    """Parse a URL in its one form: lower-case scheme and host, canonical path. Its query is left out.

    Raises:
        ValueError: it is anything else.
    """
    if not _URL.fullmatch(text):
        raise ValueError("is not a URL such as https://hooks.example/a2a in lower case")
    parts = urlsplit(text)
    try:
        target = canonical_target(
            (parts.path or "/").encode("ascii") + (f"?{parts.query}".encode() if parts.query else b"")
        )
    except Denied as error:
        raise ValueError("has a path without one safe meaning") from error
    if target.path != (parts.path or "/"):
        raise ValueError("has a path that is not in canonical form")
    return PushUrl(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme], target.path)


def check_push_urls(operation: str, params: Mapping[str, object], allowed: Sequence[PushUrl]) -> None:
    """Refuse a message that makes the agent send notifications to a URL that is not on the list.

    In a message to the agent only its configuration is searched: the parts are content. There, and in a request for
    notifications, every member called ``url`` counts, wherever the versions of A2A have it, and in any spelling.

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
            raise Denied(Reason.PUSH_URL_REFUSED, "push_urls of the route does not list it")


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
