"""Compares entries with each other: shared accounts and users, overlaps, hints, parents, agents beside sidecars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from delegation_audit.rules import Confidence, Severity
from delegation_audit.selectors import fixes
from delegation_audit.selectors.agents import is_of_sidecar
from delegation_audit.selectors.entries import Entry, Origin, path_of, trust_domain_of
from delegation_audit.selectors.entry_checks import Setting, Weaknesses, agent_entry, report
from delegation_audit.selectors.kinds import is_broad_node
from delegation_audit.selectors.overlaps import Related, Relation, Work, find_relations, hint_collisions
from delegation_audit.selectors.rulebook import RULE

_JOINED: Final = "/spire/agent/join_token/"


def check_together(entries: Sequence[Entry], setting: Setting, work: Work | None = None) -> Weaknesses:
    """Yield the weaknesses that an entry has because of another entry, and those of its parent."""
    workloads = [entry for entry in entries if not entry.is_node]
    for one in find_relations(workloads, work):
        yield from _report_relation(one)
    for entry, other in hint_collisions(workloads, work):
        text = f"the hint {entry.hint} is also that of {other.spiffe_id} ({other.label})"
        fix = fixes.set_fields(entry, hint=path_of(entry.spiffe_id).rpartition("/")[2])
        yield report(RULE["hint-collision"], entry, text, fix=fix)
    yield from _accounts(workloads)
    yield from _users(workloads)
    yield from _check_beside_sidecars(workloads, setting)
    yield from _parents(workloads, entries)


def _report_relation(one: Related) -> Weaknesses:
    entry, other = one.entry, one.other
    more = f", and {one.count - 1} more" if one.count > 1 else ""
    same = entry.spiffe_id == other.spiffe_id
    fix = fixes.deletion(entry)
    if one.relation is Relation.EQUAL and same:
        yield report(RULE["duplicate-entry"], entry, f"{other.label} is the same{more}", fix=fix)
    elif one.relation is Relation.EQUAL:
        text = f"a process that matches is also {other.spiffe_id} ({other.label}){more}"
        yield report(RULE["identical-selectors"], entry, text, fix=fix)
    elif one.relation is Relation.PART and same:
        text = f"{other.label} requires more{more}, in vain: this entry grants the same identity for less"
        yield report(RULE["subset-entry"], entry, text, fix=fix)
    elif one.relation is Relation.PART:
        text = f"each process of {other.spiffe_id} ({other.label}) gets this identity too{more}"
        yield report(RULE["subset-entry"], entry, text, fix=_narrower(entry))
    else:
        text = f"a process can also match {other.label} of {other.spiffe_id}{more}"
        rule = RULE["overlapping-entry"]
        yield report(rule, entry, text, fix=_narrower(entry), confidence=Confidence.MEDIUM)


def _narrower(entry: Entry) -> str:
    types = {one.type for one in entry.selectors}
    added = (fixes.DOCKER_IMAGE,) if "docker" in types else (fixes.USER,)
    return fixes.set_selectors(entry, add=fixes.OF_POD if "k8s" in types else added)


def _accounts(workloads: Sequence[Entry]) -> Weaknesses:
    holders: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in workloads:
        accounts, namespaces = entry.select("k8s", "sa"), entry.select("k8s", "ns")
        # The account default has its own finding, and a template takes another account in each pod. No process has two
        # accounts.
        if len(accounts) == len(namespaces) == 1 and accounts[0].value != "default" and "{{" not in accounts[0].value:
            holders[entry.cluster, namespaces[0].value, accounts[0].value].append(entry)
    for (_, space, name), found in holders.items():
        for entry, other in _find_other_workloads(found):
            fix = fixes.set_selectors(entry, remove=entry.select("k8s", "sa"), add=(fixes.ACCOUNT,))
            text = f"ServiceAccount {space}/{name} is also that of {other.spiffe_id} ({other.label})"
            yield report(RULE["shared-service-account"], entry, text, fix=fix)


def _find_other_workloads(found: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Yield each entry with an entry of another workload. An agent and its sidecar share a pod, and so an account."""
    examples: dict[tuple[bool, bool], dict[str, Entry]] = defaultdict(dict)  # two IDs and two names of either kind
    for entry in found:
        kind = is_of_sidecar(entry)
        for by_id, name in ((True, entry.spiffe_id), (False, _workload(entry))):
            if len(examples[kind, by_id]) < 2:
                examples[kind, by_id].setdefault(name, entry)
    few = [one for of_kind in examples.values() for one in of_kind.values()]
    for entry in found:
        other = next((one for one in few if _differ(entry, one)), None)
        if other is not None:
            yield entry, other


def _differ(one: Entry, other: Entry) -> bool:
    if one.spiffe_id == other.spiffe_id:
        return False
    return _workload(one) != _workload(other) or is_of_sidecar(one) == is_of_sidecar(other)


def _workload(entry: Entry) -> str:
    return path_of(entry.spiffe_id).rpartition("/")[2]


def _users(workloads: Sequence[Entry]) -> Weaknesses:
    holders: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in workloads:
        for user in [*entry.select("unix", "uid"), *entry.select("unix", "user")][:1]:
            if user.value.lstrip("0") not in ("", "root"):
                holders[entry.nodes, str(user)].append(entry)
    for (_, name), found in holders.items():
        examples: dict[str, Entry] = {}
        for entry in found:
            examples.setdefault(entry.spiffe_id, entry)
            if len(examples) == 2:
                break
        for entry in found if len(examples) == 2 else ():
            other = next(one for one in examples.values() if one.spiffe_id != entry.spiffe_id)
            fix = fixes.set_selectors(entry, remove=entry.select("unix", "uid", "user"), add=(fixes.USER,))
            text = f"{name} is also required by {other.label} of {other.spiffe_id}"
            yield report(RULE["shared-uid"], entry, text, fix=fix)


def _check_beside_sidecars(workloads: Sequence[Entry], setting: Setting) -> Weaknesses:
    sidecars: dict[tuple[str, bool], Entry] = {}  # a mesh for development is separate
    for entry in workloads:
        if is_of_sidecar(entry):
            sidecars.setdefault((entry.spiffe_id, entry.origin is Origin.DEVELOPMENT), entry)
    for entry in workloads:
        sidecar = sidecars.get((entry.spiffe_id, entry.origin is Origin.DEVELOPMENT))
        if sidecar is None:
            yield from agent_entry(entry, setting.agents)
        elif not is_of_sidecar(entry):
            text = f"{sidecar.label} gives the identity to a sidecar, this entry to another process"
            yield report(RULE["shared-with-sidecar"], entry, text, fix=fixes.deletion(entry))


def _parents(workloads: Sequence[Entry], entries: Sequence[Entry]) -> Weaknesses:
    joined: set[str] = set()
    broad: dict[str, Entry] = {}
    for entry in entries:
        if entry.is_node:
            if any("/join_token/" in one.value for one in entry.selectors):
                joined.add(entry.spiffe_id)
            if is_broad_node(entry.selectors):
                broad.setdefault(entry.spiffe_id, entry)
    for entry in workloads:
        if entry.parent_id is None:
            continue
        fix = fixes.set_fields(entry, parent_id=f"spiffe://{trust_domain_of(entry.spiffe_id)}/NODES_OF_THIS_WORKLOAD")
        if entry.has_server_as_parent and not entry.downstream:
            text = "its parent is the server, not a node"
            yield report(RULE["broad-parent"], entry, text, fix=fix)
        elif path_of(entry.parent_id).startswith(_JOINED) or entry.parent_id in joined:
            yield report(RULE["join-token-parent"], entry, f"its parent {entry.parent_id} was attested by a join token")
        alias = broad.get(entry.parent_id)
        if alias is not None:
            asked = ", ".join(sorted(map(str, alias.selectors))[:3])
            text = f"its parent {entry.parent_id} matches each node with {asked}"
            yield report(RULE["broad-parent"], entry, text, fix=fix, severity=Severity.MEDIUM)
