"""Examines files for credentials. Prints nothing; results hold no byte of a secret."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from delegation_audit.credentials.codeowners import NAME, CodeOwners
from delegation_audit.credentials.detector import Detector, DetectorError, Kingfisher
from delegation_audit.credentials.fields import MAX_FIELDS, Exposure, Read, Reference
from delegation_audit.credentials.forms import date_of
from delegation_audit.credentials.history import VERSIONS, Version, versions
from delegation_audit.credentials.judge import Judged, judge
from delegation_audit.credentials.kinds import KINDS, Kind
from delegation_audit.credentials.rank import age_days, rank, severity_of
from delegation_audit.credentials.reading import read_file
from delegation_audit.credentials.recorded import read_recorded
from delegation_audit.credentials.retire import settings_for
from delegation_audit.credentials.secrecy import Fingerprints, Masker, NameMasker
from delegation_audit.credentials.walk import BENIGN, TextFile, text_files
from delegation_audit.rules import Confidence, Place, Severity, Weakness
from delegation_core.console.counts import pluralise
from delegation_core.records.log_lines import read_lines

MAX_NAME: Final = 200  # characters of a name from a file
NOT_TO_ITS_END: Final = "streams of records that are corrupt, or unpack to too much"  # reason to skip
UNJUDGED: Final = f"judged up to {MAX_FIELDS:,} values"  # reason for a file that was not read to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A credential at one place, without its secret."""

    kind: Kind
    fingerprint: str
    place: Place
    exposure: Exposure
    confidence: Confidence
    owner: str | None
    created: str | None
    expires: str | None
    provider: str | None
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One credential with all its places, in order of discovery. ``age_days``: None if unknown."""

    kind: Kind
    fingerprint: str
    places: tuple[Place, ...]
    owners: tuple[str, ...]
    provider: str | None
    created: str | None
    expires: str | None
    age_days: int | None
    exposures: tuple[Exposure, ...]
    confidence: Confidence
    rank: int
    severity: Severity
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def counted(self) -> bool:
        """True unless the confidence is low, as for text that only looks random."""
        return self.confidence is not Confidence.LOW

    @property
    def settings(self) -> str | None:
        """Settings of a sidecar that replace the credential; None if no settings can."""
        return settings_for(self.kind, self.provider, dict(self.facts).get("target"))

    def weakness(self, place: Place) -> Weakness:
        """Return the weakness at one of the credential's places."""
        rule = KINDS[self.kind].rule
        others = len(self.places) - 1
        owner = f" of {', '.join(self.owners)}" if self.owners else ""
        text = f"{rule.title}{owner}" + (f", also in {pluralise(others, 'other place')}" if others else "") + "."
        facts = {
            "rank": str(self.rank),
            "provider": self.provider or "",
            "created": self.created or "",
            "expires": self.expires or "",
            "exposure": ", ".join(self.exposures),
            **dict(self.facts),
        }
        return rule.report(
            place,
            text,
            severity=self.severity,
            confidence=self.confidence,
            fingerprint=self.fingerprint,
            fix=rule.fix + (f" In the sidecar's settings:\n{self.settings}" if self.settings else ""),
            facts={name: value for name, value in facts.items() if value},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All credentials, highest rank first; ``skipped``: number of files not read, or not to their end, by reason."""

    credentials: tuple[Credential, ...]
    unsure: tuple[Credential, ...]
    files: int
    skipped: dict[str, int] = field(hash=False)

    @property
    def summary(self) -> tuple[int, str]:
        """Number of static credentials, and a sentence."""
        number = len(self.credentials)
        if not number:
            return 0, f"No static credential was found in {pluralise(self.files, 'file')}."
        owners = len({owner for one in self.credentials for owner in one.owners})
        places = sum(len(one.places) for one in self.credentials)
        lie = pluralise(number, "static credential lies", "static credentials lie")
        belong = "belongs" if number == 1 else "belong"
        return number, f"{lie} in {pluralise(places, 'place')} and {belong} to {pluralise(owners, 'owner')}."

    @property
    def unread(self) -> int:
        """Number of text files not read to their end: they may hold credentials that were not found."""
        return sum(count for reason, count in self.skipped.items() if reason not in BENIGN | {VERSIONS})

    def weaknesses(self) -> list[Weakness]:
        """Return a weakness for each credential at each of its places."""
        return [one.weakness(place) for one in self.credentials for place in one.places]


def examine(
    paths: Sequence[str],
    detector: Detector | None = None,
    *,
    fingerprints: Fingerprints | None = None,
    history: bool = False,
    now: int | None = None,
    ignored: Iterable[str] = (),
) -> Result:
    """Find the credentials in files and folders; with ``history``, also in the Git repositories around and below them.

    Defaults: Kingfisher as the detector, fingerprints with a random key, the current time.

    Raises:
        OSError: a given path cannot be read.
        TooLargeError: a path exceeds a limit.
        DetectorError: no detector is given, or history is read, and the library is not installed.
        HistoryError: a repository's history cannot be read.
    """
    now = int(time.time()) if now is None else now
    search = _Search(detector or Kingfisher(), fingerprints or Fingerprints(), now)
    skipped: Counter[str] = Counter()
    for file in text_files(paths, skipped):
        search.file(file, skipped)
    if history:
        for version in versions(paths, skipped):
            search.version(version, skipped)
    return search.result(frozenset(ignored), skipped)


class _Search:
    def __init__(self, detector: Detector, fingerprints: Fingerprints, now: int) -> None:
        self._detector = detector
        self._fingerprints = fingerprints
        self._now, self._today = now, date_of(now)
        self._sightings: list[Sighting] = []
        self._owners: defaultdict[str, set[str]] = defaultdict(set)
        self._weak_owners: defaultdict[str, set[str]] = defaultdict(set)
        self._code_owners = CodeOwners()
        self._known: set[tuple[str, str]] = set()  # file and fingerprint
        self._written: defaultdict[str, list[str]] = defaultdict(list)  # dates of commits, by fingerprint
        self._names = NameMasker()
        self._files = 0

    def file(self, file: TextFile, skipped: Counter[str]) -> None:
        self._files += 1
        if file.text is None:
            try:
                read = Read(tuple(read_recorded(read_lines([file.name]))))
            except OSError:  # for example beyond a limit of decompression: other files are still audited
                skipped[NOT_TO_ITS_END] += 1
                return
        else:
            read = read_file(file.name, file.text, today=self._today)
            if Path(file.name).name == NAME:
                self._code_owners.add(Path(os.path.normpath(file.name)), file.text)
        self._take(file.name, read, skipped)

    def version(self, version: Version, skipped: Counter[str]) -> None:
        """Search a former version of a file: every clone still holds the credentials that were removed since."""
        read = read_file(version.path, version.text, today=self._today)
        self._take(version.path, read, skipped, version)

    def _take(self, name: str, read: Read, skipped: Counter[str], version: Version | None = None) -> None:
        skipped[UNJUDGED] += read.cut
        try:
            judged = list(judge(read.fields, self._detector, now=self._now))
        except DetectorError:
            skipped["the detector gave up"] += 1
            return
        masker = Masker()
        for one in judged:
            masker.learn((one.secret, *one.field.hidden))
            self._names.learn((one.secret, *one.field.hidden))
        file, seen = os.path.realpath(name), set[tuple[str, object]]()
        for one in judged:
            sighting = self._sighting(masker.text(name), one, masker, version)
            if version is not None:
                self._written[sighting.fingerprint].append(version.date)
            whole = not one.field.name and one.field.literal
            keys = (sighting.fingerprint, None), (sighting.fingerprint, sighting.place.line)
            known = (file, sighting.fingerprint) in self._known if version is not None else keys[not whole] in seen
            if not known:
                self._sightings.append(sighting)
            seen.update(keys)
            self._known.add((file, sighting.fingerprint))
        for reference in read.references:
            owners = self._weak_owners if reference.weak else self._owners
            owners[reference.target].add(_mask_owner(reference, masker))

    def _sighting(self, name: str, one: Judged, masker: Masker, version: Version | None) -> Sighting:
        parts = one.field.identity or (one.secret,)
        commit = None if version is None else version.commit[:12]
        shown = ", ".join(filter(None, (one.field.object, commit and f"commit {commit}")))
        return Sighting(
            kind=one.kind,
            fingerprint=self._fingerprints.compute(*parts),
            place=Place(
                file=name,
                line=one.field.line + one.offset,
                object=_short(masker.text(shown)) or None,
                commit=commit,
            ),
            exposure=one.field.exposure if version is None else Exposure.HISTORY,
            confidence=one.confidence,
            owner=None if one.field.owner is None else _short(masker.text(one.field.owner)),
            created=one.field.created,
            expires=one.expires or one.field.expires,
            provider=one.provider,
            facts=tuple((key, _short(masker.text(value))) for key, value in _facts(one)),
        )

    def result(self, ignored: frozenset[str], skipped: Counter[str]) -> Result:
        groups: defaultdict[str, list[Sighting]] = defaultdict(list)
        for sighting in self._sightings:
            groups[sighting.fingerprint].append(sighting)
        found = [self._credential(group) for group in groups.values()]
        found = sorted((one for one in found if one.kind.value not in ignored), key=_highest_first)
        return Result(
            credentials=tuple(one for one in found if one.counted),
            unsure=tuple(one for one in found if not one.counted),
            files=self._files,
            skipped={reason: count for reason, count in sorted(skipped.items()) if count},
        )

    def _credential(self, group: Sequence[Sighting]) -> Credential:
        best = min(group, key=lambda one: (list(Confidence).index(one.confidence), -KINDS[one.kind].reach))
        shown = self._names.text  # the name of a folder or object may hold a secret of another file
        owners = sorted({shown(owner) for one in group for owner in self._owners_of(one)})
        places = tuple(
            replace(place, file=shown(place.file), object=place.object and shown(place.object))
            for place in dict.fromkeys(one.place for one in group)
        )
        days = [one.created for one in group if one.created] + self._written[best.fingerprint]
        created = min(days, default=None)
        age = age_days(created, self._today)
        exposures = tuple(dict.fromkeys(one.exposure for one in group))
        number = rank(best.kind, exposures, places=len(places), owners=len(owners), age=age)
        return Credential(
            kind=best.kind,
            fingerprint=best.fingerprint,
            places=places,
            owners=tuple(owners),
            provider=next((one.provider for one in group if one.provider), None),
            created=created,
            expires=best.expires,
            age_days=age,
            exposures=exposures,
            confidence=best.confidence,
            rank=number,
            severity=severity_of(number),
            facts=tuple((key, shown(value)) for key, value in best.facts),
        )

    def _owners_of(self, one: Sighting) -> set[str]:
        """Return the workloads that use the sighting's object or file, else a team, else the sighting's own owner."""
        path = Path(os.path.normpath(one.place.file))
        used = self._owners.get(one.owner or "", set()) | self._owners.get(str(path), set())
        used = used or self._weak_owners.get(one.owner or "", set())
        if not used and (one.owner is None or one.owner.startswith("folder ")):
            built = (self._weak_owners.get(str(folder)) for folder in path.parents)
            used = next(filter(None, built), set[str]()) or set(self._code_owners.find(path))
        return used or ({one.owner} if one.owner else set())


def _mask_owner(reference: Reference, masker: Masker) -> str:
    return _short(masker.text(reference.owner))


def _facts(one: Judged) -> tuple[tuple[str, str], ...]:
    return (*one.field.facts, *((("target", one.target),) if one.target else ()))


def _short(text: str) -> str:
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"


def _highest_first(one: Credential) -> tuple[object, ...]:
    place = one.places[0]
    return -one.rank, one.kind, place.file, place.line or 0, one.fingerprint
