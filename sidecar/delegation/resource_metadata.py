"""Protected resource metadata (RFC 9728): who issues tokens for a route of MCP, told by the sidecar itself.

The agent behind a route must not say who may issue tokens for it: a client that believed it would log in elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

_URL: Final = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/[!$-;=@-\[\]_a-z~]*)?")  # no query, nothing to quote


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """The ``url`` by which clients know a route, and the issuers of its tokens.

    Raises:
        ValueError: the URL is not absolute, or has a query, a fragment or a character that a challenge cannot hold;
            nobody issues its tokens.
    """

    url: str
    authorization_servers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not is_plain_url(self.url):
            raise ValueError("not the plain URL of a resource")
        if not self.authorization_servers:
            raise ValueError("nobody issues tokens for it; list authorization_servers")

    @property
    def path(self) -> str:
        """The path of the resource."""
        return urlsplit(self.url).path

    @property
    def metadata_path(self) -> str:
        """The path where its metadata is (RFC 9728 section 3.1)."""
        return WELL_KNOWN + ("" if self.path == "/" else self.path)

    @property
    def metadata_url(self) -> str:
        """The URL where its metadata is."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{self.metadata_path}"

    def document(self, scopes: Iterable[str]) -> bytes:
        """Return the metadata: the resource needs ``scopes``, all of them or some."""
        told = {
            "resource": self.url,
            "authorization_servers": list(self.authorization_servers),
            "scopes_supported": sorted(scopes),
            "bearer_methods_supported": ["header"],
        }
        return json.dumps(told).encode()


def is_plain_url(url: str) -> bool:
    """Return True for a URL that is absolute, without query and fragment, and needs no escapes in a challenge."""
    return _URL.fullmatch(url) is not None
