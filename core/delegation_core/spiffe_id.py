"""SPIFFE IDs and trust domains: strict parsing, comparison by bytes (SPIFFE-ID section 2).

Both types are strings that can only be created from valid text. There is no case folding, no prefix rule and no URL
library that would normalise the text.
"""

from __future__ import annotations

import re
from typing import Final

MAX_SPIFFE_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_SCHEME: Final = "spiffe://"


class SpiffeIdError(ValueError):
    """The text is not a valid SPIFFE ID. The message never quotes the text."""


class TrustDomain(str):
    """A trust domain name such as ``acme.example``, lower case (SPIFFE-ID section 2.1)."""

    __slots__ = ()

    def __new__(cls, name: str) -> TrustDomain:
        """Check the name.

        Raises:
            SpiffeIdError: ``name`` is not 1 to 255 characters of ``[a-z0-9._-]``.
        """
        if not _TRUST_DOMAIN.fullmatch(name):
            raise SpiffeIdError("a trust domain is 1 to 255 characters of a-z, 0-9, dot, dash and underscore")
        return super().__new__(cls, name)


class SpiffeId(str):
    """A workload's SPIFFE ID, ``spiffe://trust-domain/path``.

    The path is never empty: trust domains are not workloads.
    """

    __slots__ = ("trust_domain",)

    trust_domain: TrustDomain

    def __new__(cls, text: str) -> SpiffeId:
        """Parse by the grammar of SPIFFE-ID section 2, at most 2048 bytes.

        Raises:
            SpiffeIdError: ``text`` violates the grammar, has no path, or has an upper-case scheme or trust domain.
        """
        if len(text) > MAX_SPIFFE_ID_BYTES:
            raise SpiffeIdError("a SPIFFE ID has at most 2048 bytes")
        if not text.startswith(_SCHEME):
            raise SpiffeIdError("a SPIFFE ID starts with spiffe://")
        authority, slash, path = text[len(_SCHEME) :].partition("/")
        trust_domain = TrustDomain(authority)
        if not slash:
            raise SpiffeIdError("a workload's SPIFFE ID has a path")
        for segment in path.split("/"):
            if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
                raise SpiffeIdError("a path segment is one or more of A-Z a-z 0-9 dot dash underscore, not . or ..")
        spiffe_id = super().__new__(cls, text)
        spiffe_id.trust_domain = trust_domain
        return spiffe_id

    @property
    def path(self) -> str:
        """The path with its leading slash."""
        return str(self[len(_SCHEME) + len(self.trust_domain) :])
