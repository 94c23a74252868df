"""Generates the pages of records and reason codes from the schema and the texts: ``python -m sidecar.explain.docs``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from sidecar.errors import ANSWERS, Reason
from sidecar.observe.record import EVENTS, KEYS, MAX_ITEMS
from sidecar.observe.record_schema import record_schema
from sidecar.observe.record_text import CUT, MAX_TEXT
from sidecar.reasons.advice import GUIDANCE, seen

_WRITTEN: Final = "<!-- Written by `make docs`; edit sidecar/{source} instead. -->"

_PERSONAL_DATA: Final = (
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
            _WRITTEN.format(source="observe/record.py"),
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
                ((f"`{name}`", _type(schema[name]), key.means, _events(key.events)) for name, key in KEYS.items()),
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
            _WRITTEN.format(source="reasons/inbound.py and outbound.py"),
            "",
            "A refusal has one reason code: in the record, in `sidecar_…` metrics, and for the caller in the"
            " `Delegation-Reason` header and the problem+json body, with the request id. The caller learns the class"
            " and a fixed text; the record has the detail. Under *agent developer*, *it* is the agent behind the"
            " sidecar that wrote the record.",
            "",
            *_table(
                ("code", "answer", "means", "who must act: what to do", "the agent developer sees"),
                (_reason_row(reason) for reason in Reason),
            ),
            "",
        ]
    )


def _reason_row(reason: Reason) -> tuple[str, ...]:
    guidance, status = GUIDANCE[reason], ANSWERS[reason].status
    who = ", then ".join(guidance.who)
    return f"`{reason}`", str(status or "none"), guidance.means, f"**{who}**: {guidance.do}", seen(reason)


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
