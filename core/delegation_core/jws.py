"""Strict parser for compact JWS; refuses unknown header members (RFC 7515 sections 4 and 7.1, RFC 8725).

Order of checks: size, base64url alphabet and canonical form, header JSON, header members, algorithm. The payload stays
bytes; ``bearer`` parses it.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.strict_json import StrictJsonError, parse_object

MAX_TOKEN_BYTES: Final = 16384
MAX_HEADER_BYTES: Final = 4096
MAX_KID_CHARACTERS: Final = 256
_MAX_KNOWN: Final = 512  # characters of the longest header that is cached

# All supported signature algorithms; HMAC and "none" are not. The issuer's profile and the key narrow them further.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
# Any other header member brings a key along (jwk, jku, x5u, x5c), changes what is signed or how it is read (crit, b64,
# zip, cty), or is unknown. The certificate thumbprints are a hint and never used.
HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})

# Pattern of a compact JWS or JWE inside other text. The header is a JSON object: a brace, then a quotation mark or
# white space, which base64url encodes as one of these five beginnings. Some encoders pad the parts (escaped in URLs):
# we refuse such tokens, but another parser may accept them.
TOKEN_BEGINNING: Final = r"e(?:y[AJ]|w[0ko])"  # noqa: S105 - finds tokens
_PADDING: Final = r"(?:=|%3[Dd]){0,2}"
_POINT: Final = r"(?:\.|%(?:25)*+2[Ee])"  # plain, or escaped any number of times
# Group 2 is the token, group 1 the adjacent text before it. A match starts at the first token character, and only if
# two points follow; otherwise each beginning in a text would cost a scan to its end.
TOKEN_PATTERN: Final = (
    rf"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]++{_PADDING}{_POINT}[A-Za-z0-9_-]*+{_PADDING}{_POINT})"
    rf"([A-Za-z0-9_-]*?)({TOKEN_BEGINNING}[A-Za-z0-9_-]{{10,}}+(?:{_PADDING}{_POINT}[A-Za-z0-9_-]*+){{2,4}})"
)

_PART: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class CompactJws:
    """A well-formed, unverified JWS. ``typ`` is lower-cased and without ``application/`` (RFC 7515 section 4.1.9)."""

    header: dict[str, str]
    payload: bytes
    alg: str
    kid: str | None
    typ: str | None
    signing_input: bytes
    signature: bytes


def parse_compact(
    raw: str, *, members: frozenset[str] = HEADER_MEMBERS, max_bytes: int = MAX_TOKEN_BYTES
) -> CompactJws:
    """Parse a compact JWS without verifying it. ``members``: the allowed header members.

    Raises:
        Denied: TOKEN_TOO_LARGE above ``max_bytes``, or 4 KiB of header; DUPLICATE_CLAIM for a duplicate header member;
            ALG_NOT_ALLOWED unless the algorithm is in ``ALGORITHMS``; MALFORMED_TOKEN for any other defect.
    """
    if len(raw) > max_bytes:
        raise Denied(Reason.TOKEN_TOO_LARGE, "the token is too large")
    parts = raw.split(".")
    if len(parts) != 3:
        raise Denied(Reason.MALFORMED_TOKEN, "the token does not have three parts")
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise Denied(Reason.TOKEN_TOO_LARGE, "the token's header is too large")
    header_part, payload_part, signature_part = parts
    header = dict((_known_header if len(header_part) <= _MAX_KNOWN else _header)(header_part, members))
    payload = decode_part(payload_part)
    # Checked before the signature is decoded, so that an unsecured JWS, which has no signature, gets this reason.
    if header["alg"] not in ALGORITHMS:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the algorithm is not asymmetric")
    kid = header.get("kid")
    if kid is not None and len(kid) > MAX_KID_CHARACTERS:
        raise Denied(Reason.MALFORMED_TOKEN, "the kid is too long")
    return CompactJws(
        header=header,
        payload=payload,
        alg=header["alg"],
        kid=kid,
        typ=_media_type(header["typ"]) if "typ" in header else None,
        signing_input=f"{header_part}.{payload_part}".encode("ascii"),
        signature=decode_part(signature_part),
    )


def parse_json_part(document: bytes, *, max_depth: int = 16) -> dict[str, object]:
    """Parse a header or a claim set as a strict JSON object.

    Raises:
        Denied: DUPLICATE_CLAIM or MALFORMED_TOKEN.
    """
    try:
        return parse_object(document, max_bytes=MAX_TOKEN_BYTES, max_depth=max_depth)
    except StrictJsonError as error:
        raise Denied(Reason.DUPLICATE_CLAIM if error.duplicate else Reason.MALFORMED_TOKEN, str(error)) from error


def encode_part(data: bytes) -> bytes:
    """Return ``data`` as base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


def decode_part(part: str) -> bytes:
    """Decode canonical, non-empty base64url without padding. Raises Denied: MALFORMED_TOKEN."""
    # The library ignores foreign characters and trailing bits: the pattern and the comparison refuse such spellings.
    if not _PART.fullmatch(part) or len(part) % 4 == 1:
        raise Denied(Reason.MALFORMED_TOKEN, "a part is empty or not base64url")
    value = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if urlsafe_b64encode(value).rstrip(b"=") != part.encode("ascii"):
        raise Denied(Reason.MALFORMED_TOKEN, "a part is not canonical base64url")
    return value


def _header(part: str, members: frozenset[str]) -> dict[str, str]:
    document = decode_part(part)
    # TOKEN_PATTERN finds tokens by their beginning, so the header must not begin with white space, as JSON allows.
    if not document.startswith(b"{"):
        raise Denied(Reason.MALFORMED_TOKEN, "the header does not begin with a brace")
    header = parse_json_part(document)
    if not members.issuperset(header):
        raise Denied(Reason.MALFORMED_TOKEN, "the header has an unsupported member")
    strings = {member: value for member, value in header.items() if isinstance(value, str)}
    if len(strings) != len(header) or "alg" not in strings:
        raise Denied(Reason.MALFORMED_TOKEN, "the header has no alg, or a member that is not a string")
    return strings


_known_header: Final = lru_cache(maxsize=256)(_header)  # tokens of one issuer share their header


def _media_type(typ: str) -> str:
    return typ.lower().removeprefix("application/")
