"""Strict parsers for forms (application/x-www-form-urlencoded) and media types: ambiguous input is refused."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final
from urllib.parse import unquote_to_bytes

_MAX_PARAMETERS: Final = 100
# Encoders differ in the characters they escape; only "&" and "%" must be. Other visible ASCII may stay unescaped.
_ENCODED: Final = re.compile(rb"(?:[!-$'-~]|%[0-9A-Fa-f]{2})*")
_MEDIA_TYPE: Final = re.compile(
    r"[ \t]*+([A-Za-z0-9!#$&^_.+-]++/[A-Za-z0-9!#$&^_.+-]++)"  # possessive quantifiers: no backtracking
    r"(?:[ \t]*+;[ \t]*+charset=(?:utf-8|\"utf-8\"))?[ \t]*+;?[ \t]*+",
    re.IGNORECASE,
)


class FormError(ValueError):
    """The body is not a form, or is ambiguous. The message never quotes the body."""


def media_type(content_type: str | None) -> str | None:
    """Return the media type in lower case; None if absent, malformed, or with a parameter other than charset=utf-8."""
    match = _MEDIA_TYPE.fullmatch(content_type) if content_type is not None else None
    return match[1].lower() if match else None


def parse_form(body: bytes, *, repeatable: Container[str], max_bytes: int) -> dict[str, tuple[str, ...]]:
    """Return the values of each parameter, in order. An empty value counts as absent (RFC 6749 section 3.2).

    Raises:
        FormError: the form is too large, not UTF-8, badly escaped, or repeats a parameter not in ``repeatable``.
    """
    if len(body) > max_bytes:
        raise FormError("the form is too large")
    pairs = [pair for pair in body.split(b"&") if pair]
    if len(pairs) > _MAX_PARAMETERS:
        raise FormError("the form has too many parameters")
    parameters: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for pair in pairs:
        encoded_name, _, encoded_value = pair.partition(b"=")
        name, value = _decoded(encoded_name), _decoded(encoded_value)
        if name in seen and name not in repeatable:
            raise FormError("a parameter is repeated")
        seen.add(name)
        if value:
            parameters[name] = (*parameters.get(name, ()), value)
    return parameters


def _decoded(encoded: bytes) -> str:
    if not _ENCODED.fullmatch(encoded):
        raise FormError("the form has a bad escape or a character that must be escaped")
    try:
        return unquote_to_bytes(encoded.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise FormError("the form is not UTF-8") from None
