"""Judges fields: by the kind that a format declares, by the form of the value, by the detector, and by the name.

The detector reads all fields of a file as one generated text, one line ``name = "value"`` for each. So its rules see
name and value together for every format, and related fields stay close to each other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from delegation_audit.credentials.decoys import entropy, is_decoy, is_digest, is_drawn, is_placeholder, is_words
from delegation_audit.credentials.detector import Detector, Hit
from delegation_audit.credentials.fields import Exposure, Field
from delegation_audit.credentials.forms import Form, recognise
from delegation_audit.credentials.jwk import find_jwks, jwk_members
from delegation_audit.credentials.kinds import KINDS, PROVIDERS, Kind, find_kind, provider_name
from delegation_audit.rules import Confidence

MAX_PIECE: Final = 1 << 16  # characters per call of the detector
_OVERLAP: Final = 1 << 13  # characters: more than a private key has
MAX_LINE: Final = 8192  # characters of a value that our own patterns read


class Judged(NamedTuple):
    """A field with its judgement. ``secret``: the part that is the credential; it never leaves this package."""

    field: Field
    kind: Kind
    secret: str
    confidence: Confidence = Confidence.HIGH
    provider: str | None = None
    expires: str | None = None
    target: str | None = None  # the host that accepts the credential
    offset: int = 0  # lines below the field's first line


_CLIENT: Final = re.compile(r"client[-_.]?secret|app[-_.]?secret|consumer[-_.]?secret|oauth[-_.]?secret", re.IGNORECASE)
_PASSWORD: Final = re.compile(
    r"(?:^|[-_.\s])(?:password|passwd|passphrase|passcode|pwd|pass|pw|bindpw)(?:$|[-_.\s]|\d)|password$|^(?:requirepass|masterauth)$"
    r"|^(?:redis|rediscli|valkey|valkeycli)_auth$",
    re.IGNORECASE,
)
_KEY: Final = re.compile(
    r"api[-_.]?key|api[-_.]?token|access[-_.]?key|secret[-_.]?key|auth[-_.]?key|auth[-_.]?token|access[-_.]?token"
    r"|subscription[-_.]?key|account[-_.]?key|bearer|private[-_.]?token|(?:^|[-_.])(?:token|secret|pat|apikey)$"
    r"|^authorization$|refresh[-_.]?token|signing[-_.]?(?:key|secret)|webhook[-_.]?secret|license[-_.]?key|credentials?$",
    re.IGNORECASE,
)
_DATABASE: Final = re.compile(
    r"postgres|pg_?pass|datasource|mysql|maria|mongo|redis|(?:^|[-_.])(?:db|database|sql|jdbc|clickhouse|cassandra|influx)(?:[-_.]|$)"
    r"|^db|database|requirepass|masterauth|valkey",
    re.IGNORECASE,
)
_AZURE: Final = re.compile(r"azure(?!.*openai)", re.IGNORECASE)
_NOT_SECRET: Final = re.compile(
    r"(?:path|file|dir|url|uri|endpoint|host|name|header|prefix|ttl|expiry|expires|timeout|length|size|type|policy"
    r"|rotation|enabled|required|min|max|count|hash|digest|id|public|publishable|alg|algorithm|field|selector|ref"
    r"|location|scheme|issuer|audience|arn|version|template|regex|pattern)$",
    re.IGNORECASE,
)
_CALL: Final = re.compile(r"[()\[\]{};]|=>|::|\s{2}")
_AWS_ID: Final = "betterleaks.aws-access-token"
_AWS_NAME: Final = re.compile(r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[A-Z0-9]{16}")  # a key id: no secret by itself
_AWS_HALF: Final = re.compile(r"aws|secret", re.IGNORECASE)
_AWS_KEY: Final = re.compile(r"[A-Za-z0-9/+]{40}")
_NEAR: Final = 8  # lines
_AWS_SECRET: Final = re.compile(r"aws.{0,20}(?:secret|access).{0,20}|secret[-_]?access[-_]?key", re.IGNORECASE)
_TEMPORARY: Final = re.compile(r"(?:ASIA|ACCA)[A-Z0-9]{16}")  # issued by STS: expire soon
_PEM: Final = re.compile(r"PRIVATE KEY(?: BLOCK)?-----(.{16,}?)-----END", re.DOTALL)
_HUMPS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # clientSecret
_ANY_KEY: Final = re.compile(r"(?:^|[-_.])(?:key|keys)$", re.IGNORECASE)
_MIN_KEY: Final = 12
_MIN_LONG_KEY: Final = 20
_MIN_PROVIDER: Final = 5  # "zai" and "fal" occur in ordinary words
_DRAWN: Final = 3.0  # bits of entropy for each character
_MIN_RANDOM, _RANDOM = 32, 4.2
_MIN_PASSWORD: Final = 6


def judge(fields: Sequence[Field], detector: Detector, *, now: int) -> Iterator[Judged]:
    """Yield the credentials in the fields, without decoys and short-lived tokens. Raises DetectorError."""
    hits = _hits(fields, detector)
    paired = _aws_pairs(fields, hits) | _jwks(fields)
    for number, field in enumerate(fields):
        if field.identity:
            yield Judged(field, field.kind or Kind.API_KEY, "", expires=field.expires)
            continue
        if number in paired:
            yield from paired[number]
            continue
        for key in find_jwks(field.value) if field.kind is None else ():
            held = replace(field, hidden=(*field.hidden, *key.hidden))
            yield Judged(held, Kind.PRIVATE_KEY, key.secret, offset=key.line if field.literal else 0)
        yield from _judge(field, hits[number], now)


def _hits(fields: Sequence[Field], detector: Detector) -> dict[int, list[Hit]]:
    """Return the detector's hits by the index of the field; ``line`` of a hit counts from 0 at the field's first."""
    lines: list[str] = []
    owners: list[tuple[int, int]] = []
    for number, field in enumerate(fields):
        if field.identity:
            continue
        first, *rest = field.value.replace("\r", "\n").split("\n")
        if field.name:
            first = f'{" ".join(field.name.split())} = "{first}' + ("" if rest else '"')
        lines += [first, *rest]
        owners += [(number, offset) for offset in range(1 + len(rest))]
    found: dict[int, list[Hit]] = defaultdict(list)
    for begin, piece in _pieces(lines):
        for hit in detector.find(piece):
            if begin + hit.line <= len(owners):
                number, offset = owners[begin + hit.line - 1]
                found[number].append(hit._replace(line=offset))
    return found


def _pieces(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield overlapping pieces, each with the index of its first line: a slow rule then costs the square of a piece."""
    begin = 0
    while begin < len(lines):
        end, size = begin, 0
        while end < len(lines) and (size < MAX_PIECE or end == begin):
            size += len(lines[end]) + 1
            end += 1
        yield begin, "\n".join(lines[begin:end]) + "\n"
        if end == len(lines):
            return
        again, begin = 0, end
        while again + len(lines[begin - 1]) + 1 < min(_OVERLAP, size // 2):
            begin -= 1
            again += len(lines[begin]) + 1


def _aws_pairs(fields: Sequence[Field], hits: dict[int, list[Hit]]) -> dict[int, list[Judged]]:
    """Return the judgements of secret access keys by field index; the key id nearby identifies the credential."""
    ids = [(fields[n], hit.secret) for n, found in hits.items() for hit in found if hit.rule == _AWS_ID]
    paired: dict[int, list[Judged]] = {}
    for number, field in enumerate(fields):
        if not ids or not _AWS_HALF.search(field.name) or not _AWS_KEY.fullmatch(field.value) or is_decoy(field.value):
            continue
        near = [(abs(one.line - field.line), key_id) for one, key_id in ids if _belong_together(one, field)]
        if near:
            key_id = min(near)[1]
            temporary = _TEMPORARY.fullmatch(key_id) is not None
            hidden = replace(field, hidden=(*field.hidden, field.value))
            paired[number] = [] if temporary else [Judged(hidden, Kind.AWS_ACCESS_KEY, key_id, provider="AWS")]
    return paired


def _jwks(fields: Sequence[Field]) -> dict[int, list[Judged]]:
    """Return the judgements of members of JWKs by field index; public members are none."""
    judged: dict[int, list[Judged]] = {}
    for number, hidden in jwk_members(fields).items():
        field = fields[number]
        key = [] if hidden is None else [replace(field, hidden=(*field.hidden, *hidden))]
        judged[number] = [Judged(one, Kind.PRIVATE_KEY, field.value) for one in key]
    return judged


def _belong_together(one: Field, other: Field) -> bool:
    if one.group and one.group == other.group:
        return True
    return not (one.group and other.group) and abs(one.line - other.line) <= _NEAR


def _judge(field: Field, hits: Sequence[Hit], now: int) -> Iterator[Judged]:
    if field.kind is not None:
        if not is_decoy(field.value):
            yield Judged(field, field.kind, canonical(field.value), expires=field.expires)
        return
    if not field.name and field.literal:  # the whole text of a file
        yield from _judge_hits(field, hits)
        return
    form = recognise(field.value[:MAX_LINE], now=now) if "\n" not in field.value.strip() else None
    if form is not None:
        if form.kind is not None and not is_decoy(form.secret):
            yield _judge_form(field, form, hits)
        return
    specific = list(_judge_hits(field, hits))
    if specific:
        yield from specific
        return
    yield from _judge_name(field)


def _judge_form(field: Field, form: Form, hits: Sequence[Hit]) -> Judged:
    """Judge by the form, or if the detector found the same secret, by the detector's more exact kind."""
    assert form.kind is not None  # noqa: S101 - for the type only
    if form.encoded:
        field = replace(field, hidden=(*field.hidden, form.encoded))
    for hit in hits:
        what = find_kind(hit.rule)
        if what is not None and hit.secret == form.secret and what.kind is not Kind.DATABASE_PASSWORD:
            return Judged(field, what.kind, hit.secret, provider=what.provider, target=form.target)
    return Judged(field, form.kind, form.secret, expires=form.expires, target=form.target)


def _judge_hits(field: Field, hits: Sequence[Hit]) -> Iterator[Judged]:
    """Yield the detector's findings, each secret once, with the kind of the greatest reach."""
    found: dict[str, Judged] = {}
    for hit in hits:
        what = find_kind(hit.rule)
        if what is None or _TEMPORARY.fullmatch(hit.secret) or is_placeholder(hit.secret):
            continue
        secret, offset = canonical(hit.secret), hit.line if field.literal else 0
        before = found.get(secret)
        if before is None or KINDS[before.kind].reach < KINDS[what.kind].reach:
            found[secret] = Judged(field, what.kind, secret, provider=what.provider, offset=offset)
    yield from found.values()


def canonical(secret: str) -> str:
    """Return the body of a private key in PEM without line breaks, so that copies compare equal; else the secret."""
    key = _PEM.search(secret)
    return re.sub(r"\\[nr]|[^A-Za-z0-9+/=]", "", key[1]) if key is not None else secret


def _judge_name(field: Field) -> Iterator[Judged]:
    """Judge by the name: yield a credential if the name is a secret's and the value may be one."""
    name, value = _HUMPS.sub("_", field.name), field.value.strip()
    if not value or "\n" in value or len(value) > MAX_LINE or is_decoy(value) or _NOT_SECRET.search(name):
        return
    if _CLIENT.search(name):
        if len(value) >= _MIN_KEY and not is_words(value) and not _CALL.search(value):
            kind = Kind.AZURE_KEY if _AZURE.search(name) else Kind.OAUTH_CLIENT_SECRET
            yield Judged(field, kind, value, provider="Azure" if kind is Kind.AZURE_KEY else None)
        return
    if _PASSWORD.search(name):
        if _is_password(field, value):
            kind = Kind.DATABASE_PASSWORD if _DATABASE.search(f"{name} {field.owner or ''}") else Kind.PASSWORD
            yield Judged(field, kind, value, Confidence.MEDIUM)
        return
    if is_digest(name, value) or not _is_key(value) or _AWS_NAME.fullmatch(value):
        return
    if _KEY.search(name) or (len(value) >= _MIN_LONG_KEY and _ANY_KEY.search(name)):
        yield _key(field, value)
    elif field.exposure is Exposure.SECRET_OBJECT:
        yield Judged(field, Kind.API_KEY, value, Confidence.MEDIUM)  # a Secret declares its values secret
    elif field.exposure is not Exposure.CODE and len(value) >= _MIN_RANDOM and entropy(value) >= _RANDOM:
        yield Judged(field, Kind.RANDOM_TEXT, value, Confidence.LOW)


def _key(field: Field, value: str) -> Judged:
    name = field.name.lower().replace("_", "-")
    if _AWS_SECRET.search(field.name) and _AWS_KEY.fullmatch(value):
        return Judged(field, Kind.AWS_ACCESS_KEY, value, provider="AWS")
    provider = next((one for one in PROVIDERS if one in name and len(one) >= _MIN_PROVIDER), None)
    if provider is not None:
        return Judged(field, Kind.MODEL_PROVIDER_KEY, value, Confidence.MEDIUM, provider_name(provider))
    if _AZURE.search(field.name):
        return Judged(field, Kind.AZURE_KEY, value, Confidence.MEDIUM, "Azure")
    return Judged(field, Kind.API_KEY, value, Confidence.MEDIUM)


def _is_key(value: str) -> bool:
    """Return True if a value looks like a random key: long, with high entropy; no words, no code, no URL."""
    if len(value) < _MIN_KEY or " " in value or "://" in value or _CALL.search(value) or is_words(value):
        return False
    return is_drawn(value) and entropy(value) >= _DRAWN


def _is_password(field: Field, value: str) -> bool:
    """Return True if a value may be a password. Program text and text for people need more evidence than settings."""
    if len(value) < _MIN_PASSWORD or " " in value or value.endswith((",", ";")) or _CALL.search(value):
        return False
    if not value.isascii() or "://" in value or (value.istitle() and value.isalpha()):
        return False
    return not field.strict or (is_drawn(value) and not is_words(value) and not is_digest(field.name, value))
