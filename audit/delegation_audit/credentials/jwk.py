"""Finds private JSON Web Keys (RFC 7517), alone or in a JWK Set: in trees by their members, in texts by their form."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from delegation_audit.credentials.decoys import is_decoy, words
from delegation_audit.credentials.fields import Field

# Private members by key type, RFC 7518 section 6; the first that is present names the key.
_PRIVATE: Final = {
    "RSA": ("d", "p", "q", "dp", "dq", "qi"),
    "EC": ("d",),
    "OKP": ("d",),  # RFC 8037
    "oct": ("k",),
    "AKP": ("priv",),
}
_PUBLIC: Final = words("kty use key_ops alg kid x5u x5c x5t x5t#S256 crv x y n e pub")
_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{16,16384}={0,2}")
_MAX_JWK: Final = 16_384  # characters of an object, to each side of its type
_QUOTE: Final = r"\\{0,3}[\"']"
_TYPE: Final = re.compile(rf"{_QUOTE}kty{_QUOTE}\s{{0,64}}:\s{{0,64}}{_QUOTE}(RSA|EC|OKP|oct|AKP)\\{{0,3}}[\"']")
_MEMBER: Final = re.compile(
    rf"{_QUOTE}(d|p|q|dp|dq|qi|k|priv){_QUOTE}\s{{0,64}}:\s{{0,64}}{_QUOTE}([A-Za-z0-9_-]{{16,16384}}={{0,2}})\\{{0,3}}[\"']"
)


class PrivateJwk(NamedTuple):
    """A private key in a text. ``secret``: a private member, ``hidden``: the others. ``line``: counted from 0."""

    secret: str
    line: int
    hidden: tuple[str, ...]


def find_jwks(text: str) -> Iterator[PrivateJwk]:
    """Yield each private JWK in a text, such as a JSON file, a program or the value of a variable."""
    at, line, last = 0, 0, -1
    for kind in _TYPE.finditer(text) if "kty" in text else ():
        begin = text.rfind("{", max(0, kind.start() - _MAX_JWK), kind.start())
        end = text.find("}", kind.end(), kind.end() + _MAX_JWK)
        if begin in (-1, last) or end < 0 or text.find("}", begin, kind.start()) >= 0:
            continue
        last = begin  # an object has one type: more of them cost no more
        members = {one[1]: one for one in _MEMBER.finditer(text, begin, end)}
        found = [members[name] for name in _PRIVATE[kind[1]] if name in members and not is_decoy(members[name][2])]
        if found:
            line, at = line + text.count("\n", at, begin), begin
            below = text.count("\n", begin, found[0].start(2))
            yield PrivateJwk(found[0][2], line + below, tuple(one[2] for one in found[1:]))


def jwk_members(fields: Sequence[Field]) -> dict[int, tuple[str, ...] | None]:
    """Return the members of JWKs by index: for the member that names a private key the other secrets, else None."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for kind in [one for one in fields if one.name == "kty" and one.group and one.value in _PRIVATE]:
        groups[kind.group] = []
    for number, field in enumerate(fields) if groups else ():
        if field.group in groups:
            groups[field.group].append(number)
    members: dict[int, tuple[str, ...] | None] = {}
    for group in groups.values():
        names = _PRIVATE[next(fields[number].value for number in group if fields[number].name == "kty")]
        private = sorted(
            (number for number in group if fields[number].name in names), key=lambda one: names.index(fields[one].name)
        )
        secret = [
            number
            for number in private
            if _VALUE.fullmatch(fields[number].value) and not is_decoy(fields[number].value)
        ]
        members |= dict.fromkeys(number for number in group if fields[number].name in _PUBLIC or number in private)
        if secret:
            members[secret[0]] = tuple(fields[number].value for number in secret[1:])
    return members
