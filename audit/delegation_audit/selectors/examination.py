"""Examines registration entries: reads paths, returns weaknesses and a grade for each SPIFFE ID. Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from delegation_audit.rules import Place, Weakness, worst_first
from delegation_audit.selectors import fixes
from delegation_audit.selectors.actors import Actor, actors_in
from delegation_audit.selectors.agents import Agents
from delegation_audit.selectors.documents import read_documents
from delegation_audit.selectors.entries import Entry
from delegation_audit.selectors.entry_checks import MAX_SHOWN, Setting, check_entry
from delegation_audit.selectors.files import Text, read_texts
from delegation_audit.selectors.grades import Grade, Identities, Strength, counts, grades_of
from delegation_audit.selectors.members import ShapeError
from delegation_audit.selectors.rulebook import RULE
from delegation_audit.selectors.set_checks import check_together
from delegation_audit.selectors.shapes import entry_of, is_entry, partner_of
from delegation_audit.selectors.template_checks import check_template
from delegation_core.console.counts import part, pluralise

MAX_ENTRIES: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of an examination. ``actors``: those in the given records."""

    entries: Sequence[Entry]
    weaknesses: Sequence[Weakness]
    grades: Mapping[str, Grade]
    actors: Sequence[Actor] = ()

    def grade_of(self, spiffe_id: str) -> Grade | None:
        """Return the grade of an identity, such as the actor of a hop; None if no entry grants the identity."""
        return Identities(self.grades).grade(spiffe_id)

    @property
    def summary(self) -> tuple[int, str]:
        """Number of weakly attested identities, and a sentence."""
        weak = counts(self.grades)[Strength.WEAK]
        of, found = len(self.grades), len(self.weaknesses)
        sentence = f"{part(weak, of, 'identity', 'identities')} attested weakly;"
        inside = pluralise(len(self.entries), "entry", "entries")
        return weak, f"{sentence} {pluralise(found, 'weakness', 'weaknesses')} in {inside}."


def examine(
    paths: Sequence[str],
    *,
    records: Sequence[str] = (),
    agents: Agents | None = None,
    trust_domain: str | None = None,
    partners: Iterable[str] | None = None,
    ignored: Collection[str] = (),
    now: float | None = None,
) -> Result:
    """Read the entries of all paths and judge them. Rules in ``ignored`` count neither as weaknesses nor in grades.

    Raises:
        OSError: a path cannot be read or exceeds a limit; the text names the path and the limit.
    """
    entries, errors, manifested = _read(read_texts(paths))
    known = set(partners or ()) | manifested
    setting = Setting(
        agents=Agents() if agents is None else agents,
        now=int(time.time() if now is None else now),
        trust_domain=trust_domain,
        partners=frozenset(known) if known else None,
    )
    weaknesses = [*errors, *judge(entries, setting)]
    kept = [one for one in weaknesses if one.rule.id not in ignored]
    grades = grades_of(entries, kept)
    actors, unknown = actors_in(records, grades)
    kept += [one for one in unknown if one.rule.id not in ignored]
    return Result(entries=entries, weaknesses=worst_first(_merge_fixes(entries, kept)), grades=grades, actors=actors)


def judge(entries: Sequence[Entry], setting: Setting) -> list[Weakness]:
    """Return the weaknesses of single entries, then those of entries compared with each other."""
    found: list[Weakness] = []
    for entry in entries:
        found += check_entry(entry, setting)
        if entry.template is not None:
            found += check_template(entry, entry.template)
    found += check_together(entries, setting)
    return found


def _merge_fixes(entries: Sequence[Entry], weaknesses: Sequence[Weakness]) -> list[Weakness]:
    """Give all weaknesses of an entry one merged update command: separate ones would undo each other."""
    commands: dict[tuple[Place, str, str], list[str]] = {}
    for one in weaknesses:
        if fixes.is_update(one.fix.rpartition("\n")[2]):
            commands.setdefault(_entry_of(one), []).append(one.fix.rpartition("\n")[2])
    merged: dict[tuple[Place, str, str], str] = {}
    for entry in entries:
        key = entry.place, entry.spiffe_id, " ".join(sorted(map(str, entry.selectors)))[:MAX_SHOWN]
        if len(commands.get(key, ())) > 1:
            merged[key] = fixes.merge_updates(entry, commands[key])
    return [_replace_fix(one, merged.get(_entry_of(one))) for one in weaknesses]


def _replace_fix(weakness: Weakness, command: str | None) -> Weakness:
    rule, _, last = weakness.fix.rpartition("\n")
    return weakness if command is None or not fixes.is_update(last) else replace(weakness, fix=f"{rule}\n{command}")


def _entry_of(weakness: Weakness) -> tuple[Place, str, str]:
    return weakness.place, weakness.facts.get("spiffe_id", ""), weakness.facts.get("selectors", "")


def _read(texts: Iterable[Text]) -> tuple[list[Entry], list[Weakness], set[str]]:
    entries: list[Entry] = []
    errors: list[Weakness] = []
    partners: set[str] = set()
    seen: set[Entry] = set()
    for text in texts:
        for found in read_documents(text.content):
            place = Place(file=text.file, line=found.line)
            if found.error is not None:
                if not text.is_template:  # of a chart's template, only the rendered form counts
                    errors.append(RULE["unreadable-entry"].report(place, f"{place} {found.error}"))
                continue
            partner = partner_of(found.value)
            if partner is not None:
                partners.add(partner)
            if not is_entry(found.value) or not isinstance(found.value, dict):
                continue
            try:
                entry = entry_of(found.value, file=text.file, line=found.line)
                same = replace(entry, place=Place(file=""))
                if not entry.name or same not in seen:  # an entry in two exports of a server counts once
                    entries.append(entry)
                    seen.add(same)
            except ShapeError as error:
                errors.append(RULE["unreadable-entry"].report(place, f"the entry at {place} cannot be read: {error}"))
            if len(entries) > MAX_ENTRIES:
                raise OSError(f"{text.file}: more than {MAX_ENTRIES} entries; give those of one parent at a time")
    return entries, errors, partners
