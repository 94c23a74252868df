"""The closed list of kinds of audit findings, and the sentences that state them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """Kinds of findings: stable codes for machines, the worst ones first in reports."""

    MISSING_HOP = "missing_hop"
    MISSING_WITNESS = "missing_witness"
    SPLICE = "splice"
    SCOPE_WIDENED = "scope_widened"
    CHAIN_BROKEN = "chain_broken"
    WITNESSES_DISAGREE = "witnesses_disagree"
    ACTOR_NOT_PEER = "actor_not_peer"
    TOKEN_AT_TWO_PEERS = "token_at_two_peers"  # noqa: S105, a kind of finding
    ACTOR_NEVER_ATTESTED = "actor_never_attested"
    ORPHAN_AUTHORITY = "orphan_authority"
    REPEATED_CALL = "repeated_call"
    REFUSED_HOP = "refused_hop"
    OBSERVED_HOP = "observed_hop"
    ATTEMPT_TO_LEAVE = "attempt_to_leave"
    IMPERSONATION = "impersonation"
    UNFINISHED = "unfinished"
    REPEATED_RECORD = "repeated_record"
    FORGED_RECORD = "forged_record"
    RECORDS_LOST = "records_lost"
    UNREADABLE = "unreadable"


MEANINGS: Final[dict[Kind, str]] = {
    Kind.MISSING_HOP: "a hop that must have been made has no record",
    Kind.MISSING_WITNESS: "a record of the caller, the token service or the callee is missing for a hop",
    Kind.SPLICE: "a token or a call joins two chains, two subjects or two requests",
    Kind.SCOPE_WIDENED: "a token holds more than its parent, or more than was requested",
    Kind.CHAIN_BROKEN: "an actor chain that does not grow by exactly its actor",
    Kind.WITNESSES_DISAGREE: "two records of one token or one hop differ: one of them is false",
    Kind.ACTOR_NOT_PEER: "a call was accepted although its actor is not the peer",
    Kind.TOKEN_AT_TWO_PEERS: "two peers presented one token: it was stolen, or passed on",
    Kind.ACTOR_NEVER_ATTESTED: "a token names an actor that no witness of its chain saw on a connection",
    Kind.ORPHAN_AUTHORITY: "a token was accepted that its token service, whose records have no gap, never issued",
    Kind.REPEATED_CALL: "one call id, several calls",
    Kind.REFUSED_HOP: "a hop was refused",
    Kind.OBSERVED_HOP: "a hop without authority passed, on a route that only observes",
    Kind.ATTEMPT_TO_LEAVE: "an agent called what its settings do not permit, and was refused",
    Kind.IMPERSONATION: "a peer presented a token of another actor, or of a user alone; it was refused or observed",
    Kind.UNFINISHED: "a request began and has no closing record: it is still running, or its sidecar was killed",
    Kind.REPEATED_RECORD: "one record appears more than once",
    Kind.FORGED_RECORD: "two records claim the same place in one run",
    Kind.RECORDS_LOST: "numbers of a run are missing: records were lost or removed, or a file was not given",
    Kind.UNREADABLE: "lines that are not records",
}

# Attempts that a sidecar prevented. Their records are complete.
PREVENTED: Final = frozenset({Kind.REFUSED_HOP, Kind.ATTEMPT_TO_LEAVE})
# Findings that leave a chain whole. An observed hop has complete records as well, although it was not prevented.
_HARMLESS: Final = PREVENTED | {Kind.OBSERVED_HOP}


def breaks(kind: str) -> bool:
    """Return True if a finding of this kind breaks its chain: evidence is missing, false or contradictory, or an agent
    presented a token of another party. A chain with only ``_HARMLESS`` findings is whole.
    """
    return kind not in _HARMLESS


# The sentence of each rule in ``verdicts``. `{hop}` is the hop; `{a}`, `{b}`, `{c}` are columns of the verdict's row.
SENTENCES: Final[dict[str, str]] = {
    "repeated_record": "record {b} of {who} appears again",
    "forged_record": "two different records are number {b} of {who}",
    "records_lost": "{lost} missing from {who}",
    "unfinished": "{a} began a request ({b}) and never closed its record",
    "token_differs": "token {a} is recorded with more than one {b}",
    "issued_twice": "two records say that token {a} was issued",
    "other_txn": "token {a} came from {b}, a token of chain {c}",
    "other_subject": "token {a} is for {b}; it came from a token for {c}",
    "chain_differs": "token {a} names {b_actors}; the token it came from names {c_actors}",
    "wider_than_parent": "token {a} holds {more}, which the token it came from does not",
    "issued_to_another": "token {a} was issued to {b} and names {c} as its actor",
    "wider_than_asked": "token {a} holds {more}, which was not requested",
    "repeated_call": "call {a} has more than one record, by {both}",
    "remembered": "{a} → {b}: the hop has no record",
    "no_record": "{hop}: the hop has no record",
    "refused": "{hop}: refused by {a}: {b}",
    "observed": "{hop}: passed at {a}, which only observes: {b}",
    "refused_exchange": "{a} was refused a token for {b}: {c}",
    "attempt_to_leave": "{a} tried to call {b}: {c}",
    "tried_to_reach": "{a} tried to reach {b} while serving {c}",
    "tried_without_handle": "{a} tried to reach {b} without naming a request; the record lists those it was serving",
    "impersonation": "{a} presented a token of {b} to {c}",
    "missing_witness": "{hop}: the {a} has no record of it",
    "other_token": "call {call} left with token {a} and came in with token {b}{of_chain}",
    "other_caller": "call {call} was made by {a} and came from {b}",
    "other_callee": "call {call} was sent to {a} and arrived at {b}",
    "other_method": "call {call} left as {a} and came in as {b}",
    "other_path": "call {call} left for {a} and came in for {b}",
    "other_chain": "{hop} belongs to a request of chain {a}",
    "other_request_token": "{hop} was made with token {a} for a request with token {b}",
    "served_elsewhere": "{hop} belongs to a request that {a} served",
    "other_parent_token": "{hop}: token {a} came from {b}, not from {c}",
    "actor_not_peer": "{a} accepted {b} with a token that names {c}",
    "token_at_two_peers": "token {a} was presented by {b} and by {c}",
    "actor_never_attested": "token {a} names {b}, which no witness saw",
    "orphan_authority": "{c} accepted token {a}; {b} never issued it",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding. ``text``: one sentence. ``chain``: name of the chain concerned, or None. ``records``: RUN/SEQ."""

    kind: Kind
    text: str
    chain: str | None = None
    records: tuple[str, ...] = ()
