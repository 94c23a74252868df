"""Generates the pages of records and reason codes from the schema and the texts: ``python -m sidecar.explain.docs``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from delegation_core.errors import Reason
from delegation_core.records.record import EVENTS, KEYS, MAX_ITEMS, Key
from delegation_core.records.record_schema import record_schema
from delegation_core.records.record_text import CUT, MAX_TEXT
from sidecar.reasons.advice import GUIDANCE, Stage

_WRITTEN: Final = "<!-- Written by `make docs`; edit {source} instead. -->"

_LOSSES: Final = (
    "## What can be lost",
    "",
    "A thread writes each record to a file or a pipe, and does not sync it to the disk. So written records survive the "
    "end of the process, but not a crash of the machine.",
    "",
    "| what happens | route with `records: after_answer` (the default) | route with `records: before_answer` |",
    "| --- | --- | --- |",
    "| SIGKILL, or no memory left | the `request` of calls that ended within the last 50 ms, and of those in "
    "progress for less than a second: such a call may have been answered, or have had its effect at the "
    "agent, and left no record here. A longer one has left `request.opened` | `request.opened` is in the "
    "sink before the call goes on, so every permitted call has a record here: peer, subject, chain, token, "
    "route, path and decision. Its end (`request`: status, bytes, reason) may be missing |",
    "| a refusal, then SIGKILL within 50 ms | its record | its record |",
    "| the sink takes nothing (full disk, reader gone) | calls are refused with `audit_unavailable` within "
    "0.5 s; calls in progress finish, and their records wait in memory | the same, and a call whose "
    "record is not taken within a second is refused: it never reaches the agent or the next hop |",
    "| refusals while the sink takes nothing | up to 1,024 records and 1 MiB wait in memory for it, then they are "
    "counted (`sidecar_audit_events_dropped_total`) and leave a gap in `seq` | the same |",
    "| the process ends in order before the sink is back | records go to `records.spill`, or are named in "
    "the operations log | the same |",
    "",
    "`records: before_answer` is a key of inbound and outbound routes, except tunnels (`token: connect`). "
    "What the sidecar answers itself (agent cards, metadata, logins) is recorded after the answer. Such "
    "routes are served by the engine in Python, and each call waits for one more write: about twice the time "
    "and CPU of a call on a kept connection (1.7 to 2.6 times, on a busy machine), as measured by `python -m "
    "tests.integration.records_cost`. So use it for calls with an effect that must not be without evidence, not for "
    "reads.",
    "",
    "**A call that only others recorded**: `sidecar audit chains` reports it as `missing_witness`, with the "
    "witness that is missing (caller, token service or callee). It reports a call without a closing record as "
    "`unfinished`. So keep the records of all three.",
    "",
)

_PERSONAL_DATA: Final = (
    *_LOSSES,
    "## Personal data",
    "",
    "Records name people, because they are evidence of who acted for whom.",
    "",
    "- **Kept as they are**: `subject` is the token's `sub`, or the claim that `subject_claim` names, with the prefix"
    " that the settings give it. It is not hashed, and it is there also where the token did not verify (`verified` is"
    " false). So are `client_id`, `source` (an address), `path`, which holds whatever the agent's API puts there, and"
    " what an order of `sidecar sts revoke` says in `revocation` and `detail`.",
    "- **Pseudonyms**: no setting hashes `subject`. Have the identity provider issue opaque `sub` values (OpenID"
    " Connect calls them pairwise): records, settings and policies then hold these values, and only the provider"
    " knows whose they are.",
    "- **Hashed**: static credentials in `credential`, tokens in `fp`.",
    "- **Never there**: a token's other claims about the person, such as an e-mail address"
    " (unless `subject_claim` names it); queries, headers, bodies.",
    "- **Retention**: the sidecar never deletes or rewrites a record, and has no period of retention. On standard"
    " output, records live as long as your log store keeps them. A file (mode 0600) is rotated by renaming it; delete"
    " old files as a whole. `sidecar audit verify` then reports `begins_late`, or `run_missing` for a whole run, which"
    " `--ignore` accepts. A person's lines deleted from within a file break its [chain](tamper-evidence.md), and are"
    " reported as `removed`.",
    "- **Copies**: `records.spill` holds records that the sink did not accept, and `tracing.records` sends all of"
    " them to a collector. Spans hold a [keyed hash](tracing.md) of the subject, and metrics name no person. Reports"
    " and other files that `sidecar audit` writes name the same people, except a [sketch](ratio.md) of `sidecar audit"
    " ratio`.",
)

_SEEN: Final[Mapping[Stage, str]] = {
    Stage.HANDSHAKE: "the agent receives nothing; the calling agent gets 503 `upstream_unreachable` from its own"
    " sidecar. If trust in a next hop ends during a call of the agent's own, that call returns 403 with the code",
    Stage.CUT: "a connection that ends before the answer is complete",
    Stage.INBOUND: "the agent is not called; the calling agent gets the answer",
    Stage.OUTBOUND: "the agent's own call returns the answer",
    Stage.EITHER: "as inbound if the agent is called, as outbound if it calls",
    Stage.PASSED_ON: "the agent's own call returns the answer of the next hop's sidecar, with that one's code",
    Stage.SERVICE: "the agent's own call returns 403 `exchange_denied`, or 502 `sts_error` where the answer is 401",
}


def pages() -> Mapping[str, str]:
    """Return each page by its file name under ``docs/``."""
    return {"records.md": _records_page(), "reasons.md": _reasons_page()}


def _records_page() -> str:
    schema = record_schema()["properties"]
    assert isinstance(schema, dict)  # noqa: S101 - for the type only
    return "\n".join(
        [
            "# Records",
            "",
            _WRITTEN.format(source="core/delegation_core/records/record.py"),
            "",
            "One JSON object a line, to standard output or a file. All events have the same keys; a key that does not"
            " apply is null. Control characters in foreign text are escaped (`\\u{hex}`), and texts are truncated at"
            f" {MAX_TEXT} characters with the mark `{CUT}`, lists at {MAX_ITEMS} items. No token, key, cookie, body or"
            " query is ever in a record.",
            "",
            "Ids join records: `txn` names the chain, `jti_out` and `parent_jti` join its tokens (all signed);"
            " `call_out` of the caller is `call_in` of the callee. `sidecar audit chains` joins them;"
            " `sidecar explain` judges one record again.",
            "",
            "## Events",
            "",
            *_table(("event", "when"), ((f"`{event}`", means) for event, means in EVENTS.items())),
            "",
            "## Keys",
            "",
            *_table(
                ("key", "type", "meaning", "set by"),
                ((f"`{name}`", _type(schema[name]), _means(key), _events(key.events)) for name, key in KEYS.items()),
            ),
            "",
            *_PERSONAL_DATA,
            "",
        ]
    )


def _reasons_page() -> str:
    return "\n".join(
        [
            "# Reason codes",
            "",
            _WRITTEN.format(source="sidecar/reasons/inbound.py and outbound.py"),
            "",
            "A refusal has one reason code: in the record, in `sidecar_…` metrics, and for the caller in the"
            " `Delegation-Reason` header and the problem+json body, with the request id. The caller learns the class"
            " and a fixed text; the record has the detail. The stage says what a developer of the agent behind the"
            " sidecar that wrote the record sees:",
            "",
            *_table(("stage", "what the agent developer sees"), ((stage, _SEEN[stage]) for stage in Stage)),
            "",
            *_table(
                ("code", "answer", "stage", "means", "who must act: what to do"),
                (_reason_row(reason) for reason in Reason),
            ),
            "",
        ]
    )


def _reason_row(reason: Reason) -> tuple[str, ...]:
    guidance, status = GUIDANCE[reason], reason.answer.status
    who = ", then ".join(guidance.who)
    return f"`{reason}`", str(status or "none"), guidance.stage, guidance.means, f"**{who}**: {guidance.do}"


def _means(key: Key) -> str:
    return f"{key.means}; since {key.since}" if key.since else key.means


def _type(schema: object) -> str:
    assert isinstance(schema, dict)  # noqa: S101 - for the type only
    if "enum" in schema:
        return ", ".join("null" if value is None else f"`{value}`" for value in schema["enum"][:4]) + (
            ", …" if len(schema["enum"]) > 4 else ""
        )
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join("array of strings" if kind == "array" else kind for kind in kinds)


def _events(events: Sequence[str]) -> str:
    return "every event" if set(events) == set(EVENTS) else ", ".join(f"`{event}`" for event in events)


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def main(folder: Path) -> None:
    """Write the pages."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
