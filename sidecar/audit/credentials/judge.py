"""Judgement of fields: the declared kind of a value, by the detector, by the value's form, and by its name.

The detector reads all fields of a file as one text of our own, one line ``name = "value"`` for each, so that its rules
see name and value together whatever the format was, and what stands together stays near together.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sidecar.audit.credentials.decoys import entropy, is_decoy, is_digest, is_placeholder
from sidecar.audit.credentials.detector import Detector, Hit
from sidecar.audit.credentials.fields import Exposure, Field
from sidecar.audit.credentials.forms import Formed, formed
from sidecar.audit.credentials.kinds import KINDS, PROVIDERS, Kind, known, provider_name
from sidecar.audit.rules import Confidence

MAX_LINE: Final = 8192  # characters of a value that our own patterns look at


class Judged(NamedTuple):
    """A field with what it is. ``secret`` is the part that makes the credential; it never leaves this room."""

    field: Field
    kind: Kind
    secret: str
    confidence: Confidence = Confidence.HIGH
    provider: str | None = None
    expires: str | None = None
    target: str | None = None  # the host that takes the credential
    offset: int = 0  # lines below the field's first


_CLIENT: Final = re.compile(r"client[-_.]?secret|app[-_.]?secret|consumer[-_.]?secret|oauth[-_.]?secret", re.IGNORECASE)
_PASSWORD: Final = re.compile(
    r"(?:^|[-_.\s])(?:password|passwd|passphrase|pwd|pass)(?:$|[-_.\s]|\d)|password$", re.IGNORECASE
)
_KEY: Final = re.compile(
    r"api[-_.]?key|api[-_.]?token|access[-_.]?key|secret[-_.]?key|auth[-_.]?key|auth[-_.]?token|access[-_.]?token"
    r"|subscription[-_.]?key|account[-_.]?key|bearer|private[-_.]?token|(?:^|[-_.])(?:token|secret|pat|apikey)$"
    r"|^authorization$|signing[-_.]?(?:key|secret)|webhook[-_.]?secret|license[-_.]?key|credentials?$",
    re.IGNORECASE,
)
_DATABASE: Final = re.compile(
    r"postgres|pg_?pass|mysql|maria|mongo|redis|(?:^|[-_.])(?:db|database|sql|jdbc|clickhouse|cassandra|influx)(?:[-_.]|$)"
    r"|^db|database",
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
_AWS_SECRET: Final = re.compile(r"aws.{0,20}(?:secret|access).{0,20}|secret[-_]?access[-_]?key", re.IGNORECASE)
_TEMPORARY: Final = re.compile(r"(?:ASIA|ACCA)[A-Z0-9]{16}")  # of STS: they end by themselves
_PEM: Final = re.compile(r"PRIVATE KEY(?: BLOCK)?-----(.{16,}?)-----END", re.DOTALL)
_MIN_KEY: Final = 12
_MIN_PASSWORD: Final = 6


def judge(fields: Sequence[Field], detector: Detector, *, now: int) -> Iterator[Judged]:
    """Yield each field that is a credential, at most once. Decoys and short-lived tokens are left out."""
    hits = _hits(fields, detector)
    paired = _aws_pairs(fields, hits)
    for number, field in enumerate(fields):
        if field.identity:
            yield Judged(field, field.kind or Kind.API_KEY, "", expires=field.expires)
            continue
        yield from paired[number] if number in paired else _judged(field, hits[number], now)


def _hits(fields: Sequence[Field], detector: Detector) -> dict[int, list[Hit]]:
    """Return the detector's hits for each field by its number; their lines count from the field's first, from 0."""
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
    for hit in detector.find("\n".join(lines) + "\n"):
        if hit.line <= len(owners):
            number, offset = owners[hit.line - 1]
            found[number].append(hit._replace(line=offset))
    return found


def _aws_pairs(fields: Sequence[Field], hits: dict[int, list[Hit]]) -> dict[int, list[Judged]]:
    """Return for each field of an AWS key pair what it is: both halves are one credential, named by its key id."""
    ids: dict[int, str] = {}
    for number, found in hits.items():
        for hit in found:
            if hit.rule == "betterleaks.aws-access-token":
                ids.setdefault(fields[number].group, hit.secret)
    paired: dict[int, list[Judged]] = {}
    for number, field in enumerate(fields):
        key_id = ids.get(field.group)
        if key_id is None or not field.group or not _AWS_SECRET.search(field.name) or key_id in field.value:
            continue
        if len(field.value) == 40 and not is_decoy(field.value):  # the form of such a key
            temporary = _TEMPORARY.fullmatch(key_id) is not None
            paired[number] = [] if temporary else [Judged(field, Kind.AWS_ACCESS_KEY, key_id, provider="AWS")]
    return paired


def _judged(field: Field, hits: Sequence[Hit], now: int) -> Iterator[Judged]:
    if field.kind is not None:
        if not is_decoy(field.value):
            yield Judged(field, field.kind, _canonical(field.value), expires=field.expires)
        return
    if not field.name and field.literal:  # the whole text of a file
        yield from _specific(field, hits)
        return
    form = formed(field.value[:MAX_LINE], now=now) if "\n" not in field.value.strip() else None
    if form is not None:
        if form.kind is not None and not is_decoy(form.secret):
            yield _of_form(field, form, hits)
        return
    specific = list(_specific(field, hits))
    if specific:
        yield from specific
        return
    yield from _by_name(field)


def _of_form(field: Field, form: Formed, hits: Sequence[Hit]) -> Judged:
    """Return what a form says, or more exactly what the detector says about the same secret."""
    assert form.kind is not None  # noqa: S101 - for the type only
    for hit in hits:
        what = known(hit.rule)
        if what is not None and hit.secret == form.secret and form.kind in (Kind.BEARER_TOKEN, Kind.API_KEY):
            return Judged(field, what.kind, hit.secret, provider=what.provider, target=form.target)
    return Judged(field, form.kind, form.secret, expires=form.expires, target=form.target)


def _specific(field: Field, hits: Sequence[Hit]) -> Iterator[Judged]:
    """Yield what the detector found, each secret once: of several kinds the one that reaches furthest."""
    found: dict[str, Judged] = {}
    for hit in hits:
        what = known(hit.rule)
        if what is None or _TEMPORARY.fullmatch(hit.secret) or is_placeholder(hit.secret):
            continue
        secret, offset = _canonical(hit.secret), hit.line if field.literal else 0
        before = found.get(secret)
        if before is None or KINDS[before.kind].reach < KINDS[what.kind].reach:
            found[secret] = Judged(field, what.kind, secret, provider=what.provider, offset=offset)
    yield from found.values()


def _canonical(secret: str) -> str:
    """Return the body of a private key, which is the same whatever text is around it and how its lines are broken."""
    key = _PEM.search(secret)
    return re.sub(r"\\[nr]|[^A-Za-z0-9+/=]", "", key[1]) if key is not None else secret


def _by_name(field: Field) -> Iterator[Judged]:
    """Judge by the name: a secret's name with a value that has the form of one."""
    name, value = field.name, field.value.strip()
    if not value or "\n" in value or len(value) > MAX_LINE or is_decoy(value) or _NOT_SECRET.search(name):
        return
    if _CLIENT.search(name):
        if len(value) >= _MIN_KEY and not _is_words(value):
            kind = Kind.AZURE_KEY if _AZURE.search(name) else Kind.OAUTH_CLIENT_SECRET
            yield Judged(field, kind, value, provider="Azure" if kind is Kind.AZURE_KEY else None)
        return
    if _PASSWORD.search(name):
        if _is_password(field, value):
            kind = Kind.DATABASE_PASSWORD if _DATABASE.search(f"{name} {field.owner or ''}") else Kind.PASSWORD
            yield Judged(field, kind, value, Confidence.MEDIUM)
        return
    if is_digest(name, value):
        return
    if _KEY.search(name):
        if _is_key(value):
            yield _key(field, value)
        return
    if field.exposure is not Exposure.CODE and len(value) >= 32 and _is_key(value) and entropy(value) >= 4.2:
        yield Judged(field, Kind.RANDOM_TEXT, value, Confidence.LOW)


def _key(field: Field, value: str) -> Judged:
    name = field.name.lower().replace("_", "-")
    if _AWS_SECRET.search(field.name) and len(value) == 40:  # the form of such a key
        return Judged(field, Kind.AWS_ACCESS_KEY, value, provider="AWS")
    provider = next((one for one in PROVIDERS if one in name and len(one) > 4), None)  # "zai" is in words
    if provider is not None:
        return Judged(field, Kind.MODEL_PROVIDER_KEY, value, Confidence.MEDIUM, provider_name(provider))
    if _AZURE.search(field.name):
        return Judged(field, Kind.AZURE_KEY, value, Confidence.MEDIUM, "Azure")
    return Judged(field, Kind.API_KEY, value, Confidence.MEDIUM)


def _is_key(value: str) -> bool:
    """Tell if a value has the form of a drawn key: long enough, letters and digits, no words, no code."""
    if len(value) < _MIN_KEY or " " in value or _CALL.search(value) or _is_words(value):
        return False
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and entropy(value) >= 3.0


def _is_password(field: Field, value: str) -> bool:
    """Tell if a value is a password: in code it needs more evidence than in a file of settings."""
    if len(value) < _MIN_PASSWORD or " " in value or value.endswith((",", ";")) or _CALL.search(value):
        return False
    if field.exposure is not Exposure.CODE:
        return True
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and not _is_words(value)


def _is_words(value: str) -> bool:
    """Tell if a value is a name of something: words of letters with separators, and at most a number at their end."""
    parts = re.split(r"[-_./:]", re.sub(r"\d{0,3}$", "", value))
    return all(part.isalpha() and (part.islower() or part.isupper() or part.istitle()) for part in parts if part)
