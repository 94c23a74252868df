"""Turns a status document into problems in words, each with its fix. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from delegation_core.errors import Reason
from sidecar.identity.source import State
from sidecar.reasons.advice import GUIDANCE

Json = Mapping[str, Any]

_MIB: Final = 1024 * 1024
_LEAST_FREE: Final = 0.1  # of the record file's disk: the alert SidecarRecordsSinkFills has the same
_FULL_SOON_S: Final = 4 * 3600  # likewise
_DENY_AGE_S: Final = 15  # read every second: the disk does not answer, or the process is starved
_SOON_S: Final = 600  # warn this long before the end of an SVID that nobody renews

_IDENTITY: Final[Mapping[str, tuple[str, str]]] = {
    State.STARTING: (
        "no identity has arrived yet",
        "see that the SPIRE agent runs and its socket is mounted here (or that the files of identity.files are there),"
        " and that a registration entry matches this workload",
    ),
    State.DENIED: (
        "this workload has no registration entry, or its identity was withdrawn: every call is refused",
        "create or fix the entry at the SPIRE server (selectors, parent); it is used as soon as it arrives",
    ),
    State.EXPIRED: (
        "our own SVID has expired without a new one: every call is refused",
        "see why the SPIRE agent or the writer of the files renews nothing, and whether this machine's clock is right",
    ),
    State.STALE: (
        "the identity source is lost; the last identity is used until it expires",
        "bring the SPIRE agent (or the files) back before then; nothing here needs a restart",
    ),
}
_LIST_FIX: Final = "see that revocations.url answers from here, and that a replica of the token service is ready"
_KEYS_FIX: Final = "see that its jwks URL answers from here, that tls names the server, and that it publishes keys"
_SINKS: Final = (
    ("ENOSPC", "make room on the record file's disk"),
    ("EDQUOT", "make room on the record file's disk"),
    ("EROFS", "mount the record file's disk writable"),
    ("EACCES", "let the sidecar's user write the record file and its directory"),
    ("ENOENT", "create the record file's directory"),
    ("ENXIO", "start the reader of the pipe that is in the record file's place, or remove the pipe"),
    ("EISDIR", "remove the directory that is in the record file's place"),
    ("EIO", "look at the disk of the record file: it reports errors"),
    ("EPIPE", "start whatever reads standard output again"),
    ("blocked", "see that the reader of standard output, or the disk, takes what is written"),
    ("too many", "see that the reader of standard output, or the disk, keeps up"),
)
# Refusals that deserve attention, however few.
_WATCHED: Final = (
    Reason.OVERLOADED,
    Reason.ACTOR_MISMATCH,
    Reason.ACT_MISSING,
    Reason.BAD_SIGNATURE,
    Reason.TOKEN_NOT_YET_VALID,
    Reason.UNTRUSTED_CHAIN,
    Reason.WRONG_BUNDLE,
    Reason.UNKNOWN_TRUST_DOMAIN,
    Reason.SVID_EXPIRED,
)


class Grade(StrEnum):
    """Severity of a problem."""

    WRONG = "wrong"  # calls are refused because of it
    NOTE = "note"  # calls will be refused, or some are, or something was missed


@dataclass(frozen=True, slots=True)
class Trouble:
    """One problem that somebody should fix."""

    grade: Grade
    what: str
    wrong: str
    fix: str


def troubles(status: Json) -> list[Trouble]:
    """Return every problem in a status, the severe ones first."""
    found = [
        *_stopping(status),
        *_identity(status),
        *_clock(status),
        *_bundles(status),
        *_issuers(status),
        *_revocations(status),
        *_deny_file(status),
        *_deny_unmatched(status),
        *_records(status),
        *_settings(status),
        *_agent(status),
        *_upstreams(status),
        *_exchanges(status),
        *_listeners(status),
        *_door(status),
        *_bypass(status),
        *_memory(status),
        *_workers(status),
        *_lately(status),
    ]
    if not status["ready"] and all(one.grade is Grade.NOTE for one in found):
        found += [Trouble(Grade.WRONG, "start", "; ".join(status["missing"]), "wait a moment and ask again")]
    return sorted(found, key=lambda trouble: trouble.grade is Grade.NOTE)


def _stopping(status: Json) -> Iterator[Trouble]:
    if status["stopping"]:
        yield Trouble(
            Grade.WRONG, "stopping", "it was told to stop; requests in flight finish", "start it again if it should run"
        )


def _identity(status: Json) -> Iterator[Trouble]:
    identity = status["identity"]
    state, last_error = identity["state"], identity["last_error"]
    if last_error is not None and "by this machine's clock" in last_error:
        grade = _grade(wrong=state not in {State.READY, State.STALE})
        fix = "set this machine's clock right (compare `date -u` with another machine's); nothing here needs a restart"
        yield Trouble(grade, "clock", last_error, fix)
    elif state in _IDENTITY:
        wrong, fix = _IDENTITY[state]
        grade = Grade.NOTE if state == State.STALE else Grade.WRONG
        if state == State.STALE and identity["not_after"] is not None:
            wrong = f"{wrong}, in {span(identity['not_after'] - status['now'])}"
        yield Trouble(grade, "identity", _because(wrong, last_error), fix)
    elif last_error is not None:
        fix = "fix the source's output; the last good state is used meanwhile"
        yield Trouble(Grade.NOTE, "identity", f"the last update cannot be used: {last_error}", fix)
    elif identity["not_after"] is not None and identity["not_after"] - status["now"] < _SOON_S:
        left = span(identity["not_after"] - status["now"])
        yield Trouble(Grade.NOTE, "identity", f"our SVID ends in {left}", "see that the SPIRE agent renews it in time")


def _clock(status: Json) -> Iterator[Trouble]:
    not_before = status["identity"]["not_before"]
    if not_before is not None and not_before > status["now"]:
        early = span(not_before - status["now"])
        wrong = f"our own SVID is valid only in {early}: this machine's clock is slow, and valid tokens are refused"
        yield Trouble(Grade.WRONG, "clock", wrong, "set this machine's clock right; nothing here needs a restart")


def _bundles(status: Json) -> Iterator[Trouble]:
    for name in status["identity"]["missing_trust_domains"]:
        wrong = f"there is no bundle for {name}, which the settings name: its workloads are refused"
        fix = "federate our registration entry with it and see that its bundle is fetched (or is in identity.files)"
        yield Trouble(Grade.NOTE, "trust domains", wrong, fix)


def _revocations(status: Json) -> Iterator[Trouble]:
    for one in status["revocations"]:
        what, error = f"revocations of {one['issuer']}", one["last_error"]
        if one["stale"]:
            wrong = _because("the list is missing or too old, so its tokens are refused", error)
            yield Trouble(Grade.WRONG, what, wrong, _LIST_FIX)
        elif error is not None:
            yield Trouble(Grade.NOTE, what, f"{error}; the list was confirmed {span(one['age_s'])} ago", _LIST_FIX)


def _deny_file(status: Json) -> Iterator[Trouble]:
    denied = status.get("deny_file")
    if denied is None:
        return
    kept = "no call is served" if denied["sha256"] is None else f"the list of {denied['rows']} rows stays in force"
    if denied["error"] is not None:
        fix = f"fix {denied['file']}, as `sidecar check` says; it is read again within two seconds"
        yield Trouble(_grade(wrong=denied["sha256"] is None), "deny file", f"{denied['error']}; {kept}", fix)
    elif denied["age_s"] > _DENY_AGE_S:
        wrong = f"it was last read {span(denied['age_s'])} ago, so later changes are not in force; {kept}"
        yield Trouble(Grade.NOTE, "deny file", wrong, f"check the disk of {denied['file']}")


def _deny_unmatched(status: Json) -> Iterator[Trouble]:
    for one in status.get("deny_unmatched", ()):
        yield Trouble(Grade.NOTE, f"deny list, {one['row']}", one["wrong"], _fix_of(one))


def _issuers(status: Json) -> Iterator[Trouble]:
    for one in status["issuers"]:
        what, error = f"keys of {one['issuer']}", one["last_error"]
        fix = _KEYS_FIX
        if "the same kid" in (error or ""):
            fix = "have the issuer give each of its keys a kid of its own; the other keys are used meanwhile"
        if one["key_age_s"] is None:
            yield Trouble(
                _grade(wrong=one["needed"]),
                what,
                _because("there are none, so none of its tokens can be verified", error),
                fix,
            )
        elif error is not None:
            age = span(one["key_age_s"])
            yield Trouble(
                _grade(wrong=one["needed"] and error.endswith("empty")),
                what,
                f"{error}; the last set came {age} ago",
                fix,
            )


def _records(status: Json) -> Iterator[Trouble]:
    records = status["records"]
    trouble = records["trouble"]
    if trouble is not None:
        fix = next((fix for sign, fix in _SINKS if sign in trouble), "see that the record sink can be written")
        yield Trouble(
            Grade.WRONG,
            "records",
            f"{trouble}: calls that cannot be recorded are refused",
            f"{fix}; it recovers by itself",
        )
    elif 2 * records["waiting_bytes"] >= records["refused_at_bytes"]:
        wrong = f"{records['waiting']} records wait for the sink; at twice that many calls are refused"
        yield Trouble(Grade.NOTE, "records", wrong, "see that the reader of standard output, or the disk, keeps up")
    if _is_filling(records):
        free, size = records["free_bytes"] // _MIB, records["size_bytes"] // _MIB
        soon = "" if records["full_in_s"] is None else f", used up in {span(records['full_in_s'])} at the present rate"
        wrong = f"the record file's disk has {free} MiB free of {size} MiB{soon}; once it is full every call is refused"
        yield Trouble(Grade.NOTE, "records", wrong, "rotate and ship older records, or enlarge the disk")
    if records["lost"]:
        fix = "gaps in seq say which; a sink that keeps up loses none"
        yield Trouble(Grade.NOTE, "records", f"{records['lost']} events were lost since the start", fix)


def _is_filling(records: Json) -> bool:
    free, size, full_in_s = records["free_bytes"], records["size_bytes"], records["full_in_s"]
    if free is None:
        return False
    return bool(free < _LEAST_FREE * size or (full_in_s is not None and full_in_s < _FULL_SOON_S))


def _fix_of(problem: Json) -> str:
    """Return the fix of a problem. A process of an older release calls it ``cure``."""
    fix: str = problem.get("fix") or problem["cure"]
    return fix


def _settings(status: Json) -> Iterator[Trouble]:
    settings = status["settings"]
    if settings["refused_at"] is None:
        return
    ago = span(status["now"] - settings["refused_at"])
    for problem in settings["problems"]:
        wrong = f"the new file was refused {ago} ago, version {settings['number']} stays: {problem['wrong']}"
        yield Trouble(Grade.NOTE, f"settings: {problem['field']}", wrong, _fix_of(problem))


def _exchanges(status: Json) -> Iterator[Trouble]:
    for exchange in status["exchanges"]:
        refusal = exchange["last_refusal"]
        name = "token service" if len(status["exchanges"]) == 1 else f"token service of {exchange['issuer']}"
        if refusal is not None:
            guidance = GUIDANCE[Reason(refusal["reason"])]
            ago = span(status["now"] - refusal["at"])
            cause = refusal["detail"] or guidance.means
            wrong = f"the last exchange, {ago} ago, gave no token: {refusal['reason']}, {cause}"
            yield Trouble(Grade.NOTE, name, wrong, _fix(refusal["reason"]))
        if len(exchange["endpoints"]) > 1:
            yield from _endpoints(name, exchange["endpoints"])


def _endpoints(name: str, endpoints: Sequence[Json]) -> Iterator[Trouble]:
    """Report failing replicas, which successful exchanges at other replicas would hide."""
    for one in endpoints:
        if one["failing_s"] is not None:
            asked = "asked once in a few seconds" if one["open"] else "asked after the others"
            wrong = (
                f"{one['url']} has failed for {span(one['failing_s'])}: {one['reason']}, {one['detail']}; it is {asked}"
            )
            yield Trouble(Grade.NOTE, f"{name}, replica", wrong, _fix(one["reason"]))


def _agent(status: Json) -> Iterator[Trouble]:
    agent = status["agent"]
    if agent is not None and agent["up"] is False:
        wrong = f"nothing listens at {agent['address']} any more: calls get 503 upstream_unreachable"
        fix = "start the agent again and read why it ended; compare inbound.agent with the address it listens at"
        yield Trouble(Grade.WRONG, "agent", wrong, fix)


def _upstreams(status: Json) -> Iterator[Trouble]:
    told_of_agent = status["agent"] is not None and status["agent"]["up"] is False
    for one in status["upstreams"]:
        if one["direction"] == "inbound" and told_of_agent:
            continue
        ago = span(status["now"] - one["at"])
        what = f"{'agent' if one['direction'] == 'inbound' else 'next hop'} {one['address']}"
        wrong = f"the last attempt to connect, {ago} ago, failed: {one['reason']}, {one['detail']}"
        yield Trouble(Grade.NOTE, what, wrong, _fix(one["reason"]))


def _listeners(status: Json) -> Iterator[Trouble]:
    for one in status["listeners"]:
        if one["connections"] >= one["max_connections"]:
            wrong = f"all of its {one['max_connections']} connections are in use; further ones get overloaded"
            yield Trouble(
                Grade.WRONG, f"{one['direction']} listener", wrong, "raise the limit of open files, or add replicas"
            )


def _door(status: Json) -> Iterator[Trouble]:
    door = status.get("door")
    if door is None:
        return
    end, fix = door["certificate_not_after"], "put a good pair of files in place; the sidecar follows them"
    if end is not None and end <= status["now"]:
        yield Trouble(Grade.WRONG, "door", "its certificate has expired, so no client connects", fix)
    elif door["error"] is not None:
        kept = "there is none" if end is None else "the one before stays in use"
        yield Trouble(_grade(wrong=end is None), "door", f"certificate not loaded, {kept}: {door['error']}", fix)


def _bypass(status: Json) -> Iterator[Trouble]:
    bypass = status["bypass"]
    grade = _grade(wrong=bypass["refused"])
    if bypass["error"] is not None:
        fix = "let the sidecar's user read /proc/net/tcp and /proc/net/tcp6"
        yield Trouble(grade, "listeners", f"the listening sockets cannot be read: {bypass['error']}", fix)
    if bypass["listeners"]:
        refused = "; the platform file refuses every call until it is gone" if bypass["refused"] else ""
        wrong = f"{', '.join(bypass['listeners'])}: a connection there bypasses the sidecar{refused}"
        fix = "let it listen on 127.0.0.1, or add the port to inbound.other_listeners if it serves no agent"
        yield Trouble(grade, "listeners", wrong, fix)


def _memory(status: Json) -> Iterator[Trouble]:
    memory = status["memory"]
    if memory is not None and memory["short"]:
        used, limit = memory["used_bytes"] // _MIB, memory["limit_bytes"] // _MIB
        wrong = f"{used} MiB of {limit} MiB are used; further connections get overloaded until some is freed"
        fix = "raise the container's memory limit (or max_memory_mib), or add replicas; it recovers by itself"
        yield Trouble(Grade.WRONG, "memory", wrong, fix)


def _workers(status: Json) -> Iterator[Trouble]:
    if status.get("restarts"):
        wrong = f"{status['restarts']} died since the start and were replaced; their requests were lost"
        fix = (
            "read `a worker has died` in the operations log: code 137 or -9 is memory, raise its limit;"
            " any other is a bug: report it"
        )
        yield Trouble(Grade.NOTE, "workers", wrong, fix)


def _lately(status: Json) -> Iterator[Trouble]:
    """Yield refusals of the last ten minutes that deserve attention."""
    for reason in _WATCHED:
        count = status["refused_lately"].get(reason)
        if count:
            wrong = f"{count} in the last ten minutes: {GUIDANCE[reason].means}"
            yield Trouble(Grade.NOTE, reason, wrong, _fix(reason))


def _fix(reason: str) -> str:
    guidance = GUIDANCE[Reason(reason)]
    return f"{', then '.join(guidance.who)}: {guidance.do}"


def _grade(*, wrong: bool) -> Grade:
    return Grade.WRONG if wrong else Grade.NOTE


def _because(wrong: str, error: str | None) -> str:
    return wrong if error is None else f"{wrong} ({error})"


def span(seconds: float) -> str:
    """Format a duration for people: the two largest units."""
    rest = max(0, int(seconds))
    days, rest = divmod(rest, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((number for number, (amount, _) in enumerate(units) if amount), 3)
    return " ".join(f"{amount} {unit}" for amount, unit in units[first : first + 2] if amount) or "0 s"
