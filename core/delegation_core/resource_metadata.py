"""Protected resource metadata (RFC 9728) of routes, served by the sidecar: lists the issuers of their tokens.

The agent must not serve this metadata, since it could send clients to another issuer to log in.
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
    """A route's public ``url``, and the issuers of its tokens.

    Raises:
        ValueError: the URL is not plain (see ``is_plain_url``), or ``authorization_servers`` is empty.
    """

    url: str
    authorization_servers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not is_plain_url(self.url):
            raise ValueError("url is not a plain URL of a resource")
        if not self.authorization_servers:
            raise ValueError("authorization_servers is empty; list the issuers of its tokens")

    @property
    def path(self) -> str:
        """Path of ``url``."""
        return urlsplit(self.url).path

    @property
    def metadata_path(self) -> str:
        """Path of the metadata (RFC 9728 section 3.1)."""
        return WELL_KNOWN + ("" if self.path == "/" else self.path)

    @property
    def metadata_url(self) -> str:
        """URL of the metadata."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{self.metadata_path}"

    def document(self, scopes: Iterable[str]) -> bytes:
        """Return the metadata as JSON; ``scopes`` become ``scopes_supported``."""
        told = {
            "resource": self.url,
            "authorization_servers": list(self.authorization_servers),
            "scopes_supported": sorted(scopes),
            "bearer_methods_supported": ["header"],
        }
        return json.dumps(told).encode()


def is_plain_url(url: str) -> bool:
    """True if ``url`` is absolute http or https without query, fragment and characters to quote in a challenge."""
    return _URL.fullmatch(url) is not None
