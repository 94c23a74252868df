"""Checks of the names, hosts, methods and paths of routes. Unpickled routes were checked before, and need none."""

from __future__ import annotations

import re
from typing import Final

from delegation_core.errors import Denied
from delegation_core.target import canonical_target

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_NEVER_SERVED: Final = frozenset({"CONNECT", "TRACE"})
_AUTHORITY: Final = re.compile(r"(?:[a-z0-9._-]{1,255}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?")


def require_name(name: str) -> None:
    """Check the syntax of a route's name.

    Raises:
        ValueError: not 1 to 64 letters, digits, dots, dashes and underscores, with a letter or digit first.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a route's name must be 1 to 64 letters, digits, dots, dashes and underscores")


def require_match(name: str, host: str | None, prefix: str | None) -> None:
    """Check the name and the match of an outbound route.

    Raises:
        ValueError: an invalid name, not exactly one of ``host`` and ``prefix``, or an invalid one.
    """
    require_name(name)
    if (host is None) == (prefix is None):
        raise ValueError("an outbound route needs exactly one of host and prefix")
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise ValueError("a host must be a lower-case name or address, with or without a port")
    if prefix is not None:
        require_path(prefix, prefix=True)


def require_method(method: str) -> None:
    """Check a method of a route.

    Raises:
        ValueError: not an upper-case token, or CONNECT or TRACE.
    """
    if not _METHOD.fullmatch(method) or method in _NEVER_SERVED:
        raise ValueError("a method must be an upper-case token other than CONNECT and TRACE")


def require_path(path: str, *, prefix: bool) -> None:
    """Check that a route's path is canonical, so that requests can match it.

    Raises:
        ValueError: the path is refused by or differs from ``canonical_target``, or a ``prefix`` ends with a slash.
    """
    try:
        canonical = canonical_target(path.encode())
    except Denied as error:
        raise ValueError(f"the path cannot be served: {error.detail}") from error
    if canonical.path != path:
        raise ValueError("the path is not in canonical form, or has a query")
    if prefix and path != "/" and path.endswith("/"):
        raise ValueError("a prefix must not end with a slash")
