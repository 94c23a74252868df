"""Types that the audit commands share: a rule, a place, and a weakness: the rule broken at the place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

_NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})


class Severity(StrEnum):
    """Severity of a weakness, worst first. The words are stable."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Sort key: 0 is the worst."""
        return tuple(Severity).index(self)


class Confidence(StrEnum):
    """Certainty of a weakness or verdict, highest first. The words are stable."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Location of a weakness: a file as it was given, the position, and the name of the object for a person."""

    file: str
    line: int | None = None
    column: int | None = None
    object: str | None = None  # "Deployment shop/web, container web, env API_KEY"; "entry 6a1f spiffe://…"
    commit: str | None = None  # of a former version; a short name

    def __str__(self) -> str:
        numbers = "".join(f":{number}" for number in (self.line, self.column) if number is not None)
        return f"{self.file}{numbers}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule. ``id`` is stable and kebab-case; ``standard`` names the page or section that it rests on."""

    id: str
    title: str
    severity: Severity
    why: str
    fix: str
    standard: str

    def report(
        self,
        place: Place,
        text: str,
        *,
        severity: Severity | None = None,
        confidence: Confidence = Confidence.HIGH,
        fingerprint: str | None = None,
        fix: str | None = None,
        facts: Mapping[str, str] = _NO_FACTS,
    ) -> Weakness:
        """Return the weakness at a place. Severity and fix default to the rule's.

        The default fingerprint hashes the rule, the file and the object, or the line if the place names no object.
        """
        where = place.object if place.object is not None else str(place.line)
        return Weakness(
            rule=self,
            place=place,
            text=text,
            severity=self.severity if severity is None else severity,
            confidence=confidence,
            fingerprint=fingerprint_of(self.id, place.file, where) if fingerprint is None else fingerprint,
            fix=self.fix if fix is None else fix,
            facts=facts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """A rule broken at a place, made by ``Rule.report``. ``text`` is one sentence; ``fix`` may hold settings."""

    rule: Rule
    place: Place
    text: str
    severity: Severity
    confidence: Confidence
    fingerprint: str  # stable across runs; of a secret, a keyed hash
    fix: str
    facts: Mapping[str, str] = field(hash=False)


def fingerprint_of(*parts: str) -> str:
    """Return a hash of the parts: 32 hex digits. Not for secrets: the hash has no key."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()[:32]


def worst_first(weaknesses: Iterable[Weakness]) -> list[Weakness]:
    """Sort weaknesses by severity (worst first), rule and place."""
    return sorted(weaknesses, key=_order)


def _order(one: Weakness) -> tuple[object, ...]:
    place = one.place
    return one.severity.rank, one.rule.id, place.file, place.line or 0, place.column or 0, place.object or "", one.text


def unknown_rules(ignored: Sequence[str], rules: Iterable[Rule]) -> str | None:
    """Return an error message for values of ``--ignore`` that name no rule; None if all name one."""
    known = [rule.id for rule in rules]
    unknown = sorted(set(ignored) - set(known))
    if not unknown:
        return None
    verb = "is not a rule" if len(unknown) == 1 else "are not rules"
    return f"--ignore: {', '.join(unknown)} {verb}; the rules are {', '.join(known)}"
