"""Syntax checks for URLs of doors, and for origins of pages that may call them."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from delegation_core.errors import Denied
from delegation_core.target import canonical_target

_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


def is_resource(url: str) -> bool:
    """True if ``url`` can be a door's: https, canonical, without user info, and outside the sidecar's own paths."""
    try:
        parts = urlsplit(url)
        canonical = parts.path == "" or canonical_target(parts.path.encode("ascii")).path == parts.path
    except (ValueError, Denied):
        return False
    own = f"{parts.path}/".startswith(("/.sidecar/", "/.well-known/"))
    host = parts.netloc == without_default_port(parts.netloc, "https") == parts.netloc.lower()
    slash = parts.path.endswith("/") and parts.path != "/"  # an empty path and "/" are equivalent
    return parts.scheme == "https" and host and canonical and not own and not slash and "@" not in parts.netloc


def is_origin(text: str) -> bool:
    """True if ``text`` is an http or https origin as a browser sends it (RFC 6454 section 6.2)."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    plain = parts.scheme in _DEFAULT_PORTS and parts.netloc == without_default_port(parts.netloc, parts.scheme).lower()
    return plain and bool(parts.netloc) and text == f"{parts.scheme}://{parts.netloc}" and "@" not in text


def without_default_port(netloc: str, scheme: str) -> str:
    """Return ``netloc`` without the default port of ``scheme``."""
    return netloc.removesuffix(_DEFAULT_PORTS[scheme])
