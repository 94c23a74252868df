"""Canonical request targets: policy decides on exactly the target that is forwarded.

If two servers read a path differently, policy can be bypassed. So every form that servers are known to read differently
is refused: dot segments, empty segments, path parameters (``;``), fragments, backslashes, control characters, escapes
of these, and double escapes. Each accepted path has one spelling: characters that need no escape are written plainly
(RFC 3986 section 6.2.2.2), the others as upper-case escapes of valid UTF-8.

Stricter than RFC 3986: an escaped dot or slash is refused, and an escaped sub-delimiter is unescaped, since nearly
every server decodes it before it matches the path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Reason

OWN_PATHS: Final = "/.sidecar/"  # prefix of the sidecar's own paths
_MAX_REMEMBERED: Final = 256  # bytes
# pchar of RFC 3986 section 3.3 without ";": some servers drop path parameters before they match a path.
_PLAIN_CHARACTER: Final = rb"[A-Za-z0-9\-._~!$&'()*+,=:@]"
_NO_DOT_SEGMENT: Final = rb"(?!\.\.?(?:/|\Z))"
_is_plain: Final = re.compile(rb"(?:/" + _NO_DOT_SEGMENT + _PLAIN_CHARACTER + rb"+)*/?").fullmatch
_ESCAPED: Final = re.compile(rb"(?:/" + _NO_DOT_SEGMENT + rb"(?:" + _PLAIN_CHARACTER + rb"|%[0-9A-Fa-f]{2})+)*/?")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_DOUBLE_ESCAPE: Final = re.compile(rb"%25[0-9A-Fa-f]{2}")
_is_query: Final = re.compile(rb'[!"$-~]*').fullmatch  # without "#", which begins a fragment
_PLAIN_OCTETS: Final = frozenset(octet for octet in range(256) if re.fullmatch(_PLAIN_CHARACTER, bytes([octet])))
# Characters that change the meaning of a path once decoded. The dot is included for "%2e%2e" and "%2e".
_DELIMITERS: Final = frozenset(b"./\\;?#")


class CanonicalTarget(NamedTuple):
    """A canonical request target: ``path`` (ASCII, with its leading slash) and the opaque ``query``.

    ``query`` excludes the question mark and is ``b""`` if absent.
    """

    path: str
    query: bytes

    def encode(self) -> bytes:
        """Return the target in origin-form."""
        path = self.path.encode("ascii")
        return path + b"?" + self.query if self.query else path


# Faster than the named tuple's constructor, which is Python code.
_new_target: Final[Callable[[tuple[str, bytes]], CanonicalTarget]] = partial(tuple.__new__, CanonicalTarget)


def canonical_target(target: bytes) -> CanonicalTarget:
    """Parse a request target in origin-form (RFC 9112 section 3.2.1). Short targets are cached.

    Raises:
        Denied: PATH_REFUSED for any other form, and for an ambiguous path.
    """
    return _remembered(target) if len(target) <= _MAX_REMEMBERED else read_target(target)


def read_target(target: bytes) -> CanonicalTarget:
    """Parse a request target without the cache; otherwise as ``canonical_target``."""
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/"):
        raise Denied(Reason.PATH_REFUSED, "the target is not in origin-form")
    if mark and not _is_query(query):
        raise Denied(Reason.PATH_REFUSED, "the query holds a fragment, a space, a control or a non-ASCII octet")
    if not _is_plain(path):
        path = _without_needless_escapes(path)
    return _new_target((path.decode("ascii"), query))


_remembered: Final = lru_cache(maxsize=1024)(read_target)


def _without_needless_escapes(path: bytes) -> bytes:
    if not _ESCAPED.fullmatch(path):
        raise Denied(Reason.PATH_REFUSED, "the path has a dot or empty segment, a bad escape or a forbidden character")
    canonical = _ESCAPE.sub(_canonical_escape, path)
    if _DOUBLE_ESCAPE.search(canonical):
        raise Denied(Reason.PATH_REFUSED, "the path is escaped twice")
    _require_text(canonical)
    return canonical


def _canonical_escape(escape: re.Match[bytes]) -> bytes:
    octet = int(escape[1], 16)
    if octet in _DELIMITERS:
        raise Denied(Reason.PATH_REFUSED, "the path hides a delimiter in an escape")
    return bytes([octet]) if octet in _PLAIN_OCTETS else b"%%%02X" % octet


def _require_text(path: bytes) -> None:
    """Refuse escapes that are not UTF-8 (such as overlong forms of dot and slash) and control characters."""
    octets = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), path)
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Denied(Reason.PATH_REFUSED, "the path is not UTF-8") from error
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in text):
        raise Denied(Reason.PATH_REFUSED, "the path holds a control character")
