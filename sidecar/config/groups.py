"""Groups in a token service's settings: named lists that rules refer to, expanded into pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from delegation_core.errors import Problem
from delegation_core.near_names import meant, nearest_name
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError
from sidecar.config.bounds import find_exceeded
from sidecar.config.document import printable
from sidecar.config.sts_model import RuleSection, StsFile

_MOST: Final = 20  # members that are reported at once: a search for the nearest name takes time


def actors_of(file: StsFile, rule: RuleSection) -> Sequence[str]:
    """Return the SPIFFE IDs of a rule's actors: its ``actor``, or the members of its ``actor_group``."""
    return [rule.actor] if rule.actor is not None else file.groups.get(rule.actor_group or "", [])


def audiences_of(file: StsFile, rule: RuleSection) -> Sequence[str]:
    """Return a rule's audiences: its ``audience``, or the members of its ``audience_group``."""
    return [rule.audience] if rule.audience is not None else file.groups.get(rule.audience_group or "", [])


def pairs_of(file: StsFile) -> int:
    """Count the pairs of actor and audience that all rules expand to."""
    return sum(len(actors_of(file, rule)) * len(audiences_of(file, rule)) for rule in file.rules)


def missing_in_rules(document: Mapping[str, object]) -> Iterator[Problem]:
    """Yield a problem for each rule of a document, valid or not, without an actor or an audience."""
    rules = document.get("rules")
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        for key in ("actor", "audience"):
            if isinstance(rule, dict) and rule.get(key) is None and rule.get(f"{key}_group") is None:
                yield Problem(f"rules[{number}].{key}", "is missing", f"add it, or {key}_group")


def group_problems(file: StsFile) -> Iterator[Problem]:
    """Check groups, the references of rules to them, and the number of pairs that rules expand to."""
    for name, members in file.groups.items():
        where = f"groups.{printable(name)}"
        if not members:
            yield Problem(where, "is empty, so its rules would permit nothing", "list its members, or remove it")
        seen = set[str]()
        for number, member in enumerate(members):
            if member in seen:
                yield Problem(f"{where}[{number}]", f"{printable(member)} is listed twice", "keep one of them")
            seen.add(member)
    for number, rule in enumerate(file.rules):
        where = f"rules[{number}]"
        yield from _one_of(file, where, "actor", rule.actor, rule.actor_group)
        yield from _one_of(file, where, "audience", rule.audience, rule.audience_group)
        if rule.actor_group is not None:
            yield from _workloads(file, f"{where}.actor_group", rule.actor_group)
    too_many = list(find_exceeded("rules", "rules", pairs_of(file)))
    yield from too_many or islice(_not_targets(file), _MOST)


def _not_targets(file: StsFile) -> Iterator[Problem]:
    """Report each unknown target in an audience group once, however many rules name the group."""
    known = {name for target in file.targets for name in (target.workload, *target.audiences)}
    used = {rule.audience_group: f"rules[{number}]" for number, rule in reversed(list(enumerate(file.rules)))}
    for name, where in used.items():
        for number, member in enumerate(file.groups.get(name or "", [])):
            if member not in known:
                wrong = f"{printable(member)} is not a target, and {where} has the group for audiences"
                fix = meant(member, known, "list it under targets")
                yield Problem(f"groups.{printable(name or '')}[{number}]", wrong, fix)


def _one_of(file: StsFile, where: str, key: str, value: str | None, group: str | None) -> Iterator[Problem]:
    if value is not None and group is not None:
        yield Problem(f"{where}.{key}_group", f"is set beside {key}", "keep one of them")
    elif group is not None and group not in file.groups:
        near = nearest_name(group, file.groups, cutoff=0.6)
        fix = f"did you mean {printable(near)}?" if near else "add it to groups"
        yield Problem(f"{where}.{key}_group", f"{printable(group)} is not a group", fix)


def _workloads(file: StsFile, where: str, group: str) -> Iterator[Problem]:
    for number, member in enumerate(file.groups.get(group, [])):
        try:
            SpiffeId(member)
        except SpiffeIdError:
            wrong = f"groups.{printable(group)}[{number}] is not a SPIFFE ID, and actors are workloads"
            yield Problem(where, wrong, "write spiffe://trust-domain/path")
            return
