"""Grades SPIFFE IDs by the strength of the proof that SPIRE requires of a process before it grants the identity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from delegation_audit.rules import Severity, Weakness
from delegation_audit.selectors.entries import Entry
from delegation_audit.selectors.kinds import digest_of, is_interpreter, is_signed
from delegation_audit.selectors.shapes import makes, pieces_of


class Strength(StrEnum):
    """Strength of an attestation, strongest first. The words are stable."""

    STRONG = "strong"
    MEDIUM = "medium"
    WEAK = "weak"

    @property
    def rank(self) -> int:
        """Sort key: 0 is the strongest."""
        return tuple(Strength).index(self)


@dataclass(frozen=True, slots=True)
class Grade:
    """Strength of an identity's attestation, with one phrase as the reason."""

    strength: Strength
    reason: str


# A weakness of these rules makes the grade weak, however strong the other selectors are.
_MAKES_WEAK: Final = frozenset(
    {
        "no-selectors",
        "namespace-only",
        "label-only",
        "group-only",
        "root-user",
        "shared-uid",
        "service-account-without-namespace",
        "template-without-service-account",
        "template-without-namespace",
        "store-svid",
        "shared-with-sidecar",
    }
)
_CAPS: Final = frozenset(
    {
        "join-token-parent",
        "broad-parent",
        "shared-service-account",
        "identical-selectors",
        "subset-entry",
        "image-tag",
        "whole-pod",
    }
)


def grades_of(entries: Iterable[Entry], weaknesses: Iterable[Weakness]) -> dict[str, Grade]:
    """Grade each SPIFFE ID of a workload by its weakest entry, because each entry grants the ID."""
    rules: dict[tuple[str, int | None, str | None], list[Weakness]] = defaultdict(list)
    for one in weaknesses:
        rules[one.place.file, one.place.line, one.place.object].append(one)
    grades: dict[str, Grade] = {}
    for entry in entries:
        if entry.is_node:
            continue
        place = entry.place
        found = _grade(entry, rules[place.file, place.line, place.object])
        before = grades.get(entry.spiffe_id)
        if before is None or found.strength.rank > before.strength.rank:
            grades[entry.spiffe_id] = found
    return grades


class Identities:
    """Grades by SPIFFE ID. The grade of a ClusterSPIFFEID's template applies to each ID that the template makes."""

    def __init__(self, grades: Mapping[str, Grade]) -> None:
        self._grades = {name: grade for name, grade in grades.items() if "{{" not in name}
        self._templates = [(pieces_of(name), grade) for name, grade in grades.items() if "{{" in name]

    def grade(self, spiffe_id: str) -> Grade | None:
        """Return the weakest grade among the entries that grant the ID, or None if none does."""
        found = [grade for pieces, grade in self._templates if makes(pieces, spiffe_id)]
        exact = self._grades.get(spiffe_id)
        if exact is not None:
            found.append(exact)
        return max(found, key=lambda one: one.strength.rank, default=None)


def counts(grades: Mapping[str, Grade]) -> dict[Strength, int]:
    """Return the number of identities of each strength."""
    return {strength: sum(one.strength is strength for one in grades.values()) for strength in Strength}


def _grade(entry: Entry, weaknesses: Sequence[Weakness]) -> Grade:
    reasons = [one for one in weaknesses if one.rule.id in _MAKES_WEAK]
    if reasons:
        worst = min(reasons, key=lambda one: one.severity.rank)
        return Grade(Strength.WEAK, _phrase(worst))
    types = {one.type for one in entry.selectors}
    graded = [_OF_TYPE.get(type_, _others)(entry) for type_ in sorted(types)] or [_others(entry)]
    best = min(graded, key=lambda one: one.strength.rank)  # a process must have all selectors, so the best counts
    caps = [one for one in weaknesses if one.rule.id in _CAPS]
    if best.strength is Strength.STRONG and caps:
        worst = min(caps, key=lambda one: (one.severity.rank, one.rule.id))
        return Grade(Strength.MEDIUM, f"{best.reason}, but: {_phrase(worst)}")
    return best


def _phrase(one: Weakness) -> str:
    return one.rule.title[0].lower() + one.rule.title[1:] if one.severity is not Severity.CRITICAL else one.rule.title


def _k8s(entry: Entry) -> Grade:
    images = entry.select("k8s", "container-image", "pod-image")
    named = bool(entry.select("k8s", "ns")) or bool(entry.select("k8s", "pod-uid"))
    account = bool(entry.select("k8s", "sa"))
    if is_signed(entry.select("k8s", *_SIGNATURES)):
        return Grade(Strength.STRONG if named else Strength.MEDIUM, "a verified signature of the image")
    if any(digest_of(one.value) for one in images):
        if named:
            return Grade(Strength.STRONG, "the image by digest, and the namespace")
        return Grade(Strength.MEDIUM, "the image by digest, in any namespace")
    if entry.select("k8s", "pod-uid", "pod-owner-uid"):
        return Grade(Strength.MEDIUM, "one pod")
    if named and account:
        return Grade(Strength.MEDIUM, "namespace and ServiceAccount: whoever may create pods with the account")
    return Grade(Strength.WEAK, "only values that the author of a pod chooses")


def _unix(entry: Entry) -> Grade:
    user = bool(entry.select("unix", "uid", "user"))
    paths = entry.select("unix", "path")
    program = bool(paths) and not any(is_interpreter(one.value) for one in paths)
    hashed = bool(entry.select("unix", "sha256")) and (program or not paths)
    if user and hashed:
        return Grade(Strength.STRONG, "a user of its own, and the hash of its program")
    if user:
        return Grade(Strength.MEDIUM, "a user of its own" + (", and the path of its program" if program else ""))
    if hashed:
        return Grade(Strength.MEDIUM, "the hash of its program, run by any user")
    if program:
        return Grade(Strength.MEDIUM, "the path of its program, run by any user")
    return Grade(Strength.WEAK, "an interpreter, or a group")


def _docker(entry: Entry) -> Grade:
    images = [one for one in entry.select("docker", "image_id") if digest_of(one.value)]
    if images or entry.select("docker", "image_config_digest"):
        return Grade(Strength.STRONG, "the image by digest")
    if is_signed(entry.select("docker", *_SIGNATURES)):
        return Grade(Strength.STRONG, "a verified signature of the image")
    return Grade(Strength.WEAK, "only values that whoever starts a container chooses")


def _others(entry: Entry) -> Grade:
    if entry.select("systemd", "id", "fragment_path"):
        return Grade(Strength.MEDIUM, "a unit, which root writes")
    if entry.select("dev", "socket"):
        return Grade(Strength.MEDIUM, "a socket that only this workload's volume holds")
    if any(one.type not in ("k8s", "unix", "docker") for one in entry.selectors):
        return Grade(Strength.MEDIUM, "an attestor unknown to this audit")
    return Grade(Strength.WEAK, "nothing that proves a workload")


_OF_TYPE: Final = {"k8s": _k8s, "unix": _unix, "docker": _docker}
_SIGNATURES: Final = ("image-signature", "image-signature-subject", "image-signature-issuer", "image-attestations")
