"""The closed list of kinds of audit findings, and one finding of a kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """Stable codes, for machines."""

    MISSING_HOP = "missing_hop"
    MISSING_WITNESS = "missing_witness"
    SPLICE = "splice"
    SCOPE_WIDENED = "scope_widened"
    CHAIN_BROKEN = "chain_broken"
    WITNESSES_DISAGREE = "witnesses_disagree"
    ACTOR_NOT_PEER = "actor_not_peer"
    REPEATED_CALL = "repeated_call"
    REFUSED_HOP = "refused_hop"
    UNFINISHED = "unfinished"
    REPEATED_RECORD = "repeated_record"
    FORGED_RECORD = "forged_record"
    RECORDS_LOST = "records_lost"
    UNREADABLE = "unreadable"


MEANINGS: Final[dict[Kind, str]] = {
    Kind.MISSING_HOP: "a hop that must have been made has no record",
    Kind.MISSING_WITNESS: "a record of the caller, the token service or the callee is missing for a hop",
    Kind.SPLICE: "a token, or a call, joins two chains, two subjects or two requests",
    Kind.SCOPE_WIDENED: "a token holds more than its parent, or more than was requested",
    Kind.CHAIN_BROKEN: "an actor chain that does not grow by exactly its actor",
    Kind.WITNESSES_DISAGREE: "two records of one token or one hop differ: one of them is false",
    Kind.ACTOR_NOT_PEER: "a call was let through although its actor is not the peer",
    Kind.REPEATED_CALL: "one call id, several calls",
    Kind.REFUSED_HOP: "a hop was refused",
    Kind.UNFINISHED: "a request began and has no closing record: it still runs, or its sidecar was killed",
    Kind.REPEATED_RECORD: "one record appears more than once",
    Kind.FORGED_RECORD: "two records claim the same place in one run",
    Kind.RECORDS_LOST: "numbers of a run are missing: records were lost, removed, or are in a file not given",
    Kind.UNREADABLE: "lines that are not records",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """``text`` states the finding; ``chain`` is the chain it is about; ``records`` (run/seq) are the evidence."""

    kind: Kind
    text: str
    chain: str | None = None
    records: tuple[str, ...] = ()
