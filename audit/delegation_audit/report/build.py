"""Builds the report from the JSON document of ``sidecar audit chains`` and the record lines that are its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from delegation_audit.chains.findings import breaks
from delegation_audit.report.story import Evidence, Problem, Step, Story
from delegation_core.console.counts import pluralise
from delegation_core.errors import Reason
from delegation_core.records.hash_chain import line_hash
from delegation_core.records.log_lines import Line
from delegation_core.records.record_text import mask_tokens

MOST_EVIDENCE: Final = 500
MOST_CLAIMS: Final = 8  # lines with the same record name
MOST_CHARACTERS: Final = 1 << 16  # of a line: no genuine record is as long

# Kinds of findings to show first: impersonation, then missing or contradictory evidence.
_FIRST: Final = ("impersonation", "missing_hop", "splice", "orphan_authority", "scope_widened")
_LAST: Final = ("observed_hop", "refused_hop", "attempt_to_leave", "missing_witness", "unreadable")
_WITNESSES: Final = {"caller": "caller", "token_service": "token service", "callee": "callee"}


def stories_of(document: Mapping[str, Any]) -> tuple[list[Story], list[Problem]]:
    """Return the stories of the document's chains, worst first, and the problems that concern none of these chains."""
    by_chain: dict[str | None, list[Problem]] = {}
    for finding in document["findings"]:
        by_chain.setdefault(finding["chain"], []).append(_problem(finding))
    stories = [_story(chain, by_chain.pop(chain["chain"], [])) for chain in document["chains"]]
    stories.sort(key=lambda story: (-sum(one.grave for one in story.problems), -len(story.problems), story.began))
    return stories, _sort(problem for problems in by_chain.values() for problem in problems)


def names_in(stories: Iterable[Story], problems: Iterable[Problem]) -> list[str]:
    """Return the names (RUN/SEQ) of all records that stories and problems refer to, in order of appearance."""
    names: dict[str, None] = {}
    for story in stories:
        for problem in story.problems:
            names |= dict.fromkeys(problem.evidence)
        for step in story.steps:
            names |= dict.fromkeys(step.evidence)
    for problem in problems:
        names |= dict.fromkeys(problem.evidence)
    return list(names)


def evidence_in(lines: Iterable[Line], names: Sequence[str]) -> list[Evidence]:
    """Return the lines of the first MOST_EVIDENCE named records, in the order of the names. Several lines may claim one
    name: at most MOST_CLAIMS are returned, and the place of the last states the number of further lines.
    """
    wanted = set(names[:MOST_EVIDENCE])
    found: dict[str, list[Evidence]] = {}
    further: Counter[str] = Counter()
    for line in lines:
        name = _name_of(line.content)
        if name in wanted and line.content is not None:
            claims = found.setdefault(name, [])
            if len(claims) == MOST_CLAIMS:
                further[name] += 1
                continue
            text = line.content.decode("utf-8", "replace")
            if len(text) > MOST_CHARACTERS:
                text = mask_tokens(text)  # before the cut: half a token would not be recognised
                text = f"{text[:MOST_CHARACTERS]}… ({pluralise(len(text), 'character')})"
            claims.append(Evidence(name=name, place=line.place, hash=line_hash(line.content), line=text))
    for name, count in further.items():
        last = found[name][-1]
        found[name][-1] = replace(last, place=f"{last.place}, and {pluralise(count, 'further line')} with this name")
    return [one for name in names for one in found.get(name, ())]


def _story(chain: Mapping[str, Any], problems: Sequence[Problem]) -> Story:
    steps: list[Step] = []
    scopes: dict[int, tuple[str, ...] | None] = {}  # of the last hop at each depth
    for hop in chain["hops"]:
        scope = None if hop["scope"] is None else tuple(hop["scope"])
        before = scopes.get(hop["depth"] - 1)
        scopes[hop["depth"]] = scope
        steps.append(_step(hop, scope or (), before if any(hop["witnesses"].values()) else None))
    agents = dict.fromkeys(name for step in steps for name in (step.actor, step.audience) if name is not None)
    return Story(
        chain=chain["chain"],
        subjects=tuple((one["iss"], one["sub"]) for one in chain["subjects"]),
        agents=tuple(agents),
        steps=tuple(steps),
        problems=tuple(_sort(problems)),
    )


def _step(hop: Mapping[str, Any], scope: tuple[str, ...], before: tuple[str, ...] | None) -> Step:
    decision, ended = hop["decision"], hop["decision"] == "deny" and hop.get("allowed") is True
    verb = {"allow": "allowed", "deny": "refused", "observed_deny": "passed without authority"}.get(decision)
    verb = "allowed, then ended" if ended else verb
    said = [
        str(word)
        for word in (verb, hop["status"], hop["reason"] if hop["reason"] != "ok" else None)
        if word is not None
    ]
    told = {name: hop["witnesses"].get(name) for name in _WITNESSES}
    outcome = " ".join(said) or ("token issued, no call seen" if told["token_service"] else "no record")
    return Step(
        depth=hop["depth"],
        time=hop["ts"] or "",
        actor=hop["actor"],
        audience=hop["audience"],
        operation=" ".join(filter(None, (hop["method"], hop["path"]))) or None,
        outcome=outcome,
        allowed=True if ended else {"allow": True, "deny": False, "observed_deny": False}.get(decision),
        failed=ended
        or (
            decision == "allow"
            and (hop["status"] is None or hop["status"] >= 400 or hop["reason"] == Reason.NEXT_HOP_REFUSED)
        ),
        scope=scope,
        dropped=tuple(name for name in before or () if name not in scope),
        added=tuple(name for name in scope if before is not None and name not in before),
        witnesses=tuple(_WITNESSES[name] for name, record in told.items() if record is not None),
        missing=tuple(name.replace("_", " ") for name in hop["missing_witnesses"]),
        evidence=tuple(dict.fromkeys(record for record in told.values() if record is not None)),
    )


def _problem(finding: Mapping[str, Any]) -> Problem:
    kind = str(finding["kind"])
    return Problem(kind=kind, text=finding["text"], grave=breaks(kind), evidence=tuple(finding["records"]))


def _sort(problems: Iterable[Problem]) -> list[Problem]:
    def order(problem: Problem) -> tuple[int, str, str]:
        kind = problem.kind
        rank = _FIRST.index(kind) if kind in _FIRST else 100 + (_LAST.index(kind) + 1 if kind in _LAST else 0)
        return rank, kind, problem.text

    return sorted(problems, key=order)


def _name_of(content: bytes | None) -> str | None:
    if content is None:
        return None
    try:
        members = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return f"{members.get('run')}/{members.get('seq')}" if isinstance(members, dict) else None
