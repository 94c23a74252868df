"""Finds deny-list rows that match nothing under the current settings, most often because a name is misspelled.

Such rows stay in force: an unknown name never causes a list to be refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from delegation_core.near_names import nearest_name, reads_like
from delegation_core.policy import Deny
from delegation_core.profile import TrustedIssuer
from delegation_core.spiffe_id import TrustDomain

MAX_UNMATCHED: Final = 20
_SPIFFE: Final = "spiffe://"


class Unmatched(NamedTuple):
    """A deny-list row, the reason why it matches nothing, and the fix."""

    row: str
    wrong: str
    fix: str


def unmatched(deny: Deny, *, domains: Collection[str], issuers: Collection[str]) -> Iterator[Unmatched]:
    """Yield rows for workloads outside ``domains``, and rows that misspell one of ``issuers``.

    Yields at most ``MAX_UNMATCHED``, since each costs a search. An issuer that resembles none is not reported: only the
    token service may know it.
    """
    found = chain(_strangers(deny, domains), _other_spellings(deny, issuers))
    return islice(found, MAX_UNMATCHED)


def _strangers(deny: Deny, domains: Collection[str]) -> Iterator[Unmatched]:
    workloads = [("actor", actor) for actor in deny.actors]
    workloads += [("subject", subject) for _, subject in deny.subjects if subject.startswith(_SPIFFE)]
    unknown = [(kind, name) for kind, name in workloads if _domain(name) not in domains]
    for kind, name in sorted(unknown):
        near = nearest_name(_domain(name), domains)
        yield Unmatched(
            f"{kind} {name}",
            f"no issuer and no route of the settings has the trust domain {_domain(name)}",
            f"did you mean {near}?" if near else "correct it, or remove the row",
        )


def _other_spellings(deny: Deny, issuers: Collection[str]) -> Iterator[Unmatched]:
    meant = {issuer: _other_spelling(issuer, issuers) for issuer, _ in deny.subjects if issuer is not None}
    for issuer, subject in sorted((issuer, subject) for issuer, subject in deny.subjects if issuer and meant[issuer]):
        yield Unmatched(
            f"subject {subject}", f"the settings write the issuer {issuer} as {meant[issuer]}", f"write {meant[issuer]}"
        )


def domains_of(issuers: Iterable[TrustedIssuer], peers: Iterable[TrustDomain]) -> set[str]:
    """Return the trust domains of the actors of ``issuers``, and those of ``peers``."""
    return set(map(str, {*peers, *(domain for issuer in issuers for domain in issuer.actor_trust_domains)}))


def _domain(workload: str) -> str:
    return workload.removeprefix(_SPIFFE).partition("/")[0]


def _other_spelling(issuer: str, known: Collection[str]) -> str | None:
    return None if issuer in known else next((one for one in known if reads_like(one, issuer)), None)
