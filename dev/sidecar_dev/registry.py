"""Registry of identities: the entries, the authorities, and the SVIDs issued for them. It uses no socket.

To keep an answer current: get `Registry.changed`, query, and query again at that event or at the answer's renewal time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from delegation_core.spiffe_id import TrustDomain
from sidecar_dev.attestation import Peer
from sidecar_dev.certificates import BACKDATED_S
from sidecar_dev.entries import Entry
from sidecar_dev.pki import IssuedSvid, TrustDomainAuthority


class NoIdentityError(Exception):
    """Nothing is registered for this process, or it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """Current rights of a process: its matching entries, in order, and the authorities to send."""

    entries: tuple[Entry, ...]
    own: Mapping[TrustDomain, TrustDomainAuthority]
    federated: Mapping[TrustDomain, TrustDomainAuthority]

    @property
    def known(self) -> Mapping[TrustDomain, TrustDomainAuthority]:
        """The authorities that the process may trust, by trust domain."""
        return {**self.federated, **self.own}


class Registry:
    """Entries, authorities and issued SVIDs. The processes of an entry share its SVID, renewed at half its life.

    ``clock`` gives seconds since the epoch.
    """

    def __init__(
        self,
        authorities: Iterable[TrustDomainAuthority],
        entries: Sequence[Entry] = (),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authorities = {authority.trust_domain: authority for authority in authorities}
        self._entries = tuple(entries)
        self._clock = clock
        self._issued: dict[Entry, IssuedSvid] = {}
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Event of the next change. Get it before a query, so that no change is missed."""
        return self._changed

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries; the first that matches a process is its default identity."""
        return self._entries

    def authority(self, trust_domain: str) -> TrustDomainAuthority:
        """Return the authority of a trust domain. After a change to it, call `notify`."""
        return self._authorities[TrustDomain(trust_domain)]

    def replace_entries(self, entries: Sequence[Entry]) -> None:
        """Replace the entries. A process that matches none loses its identity at once."""
        self._entries = tuple(entries)
        self._issued = {entry: svid for entry, svid in self._issued.items() if entry in self._entries}
        self.notify()

    def add_entry(self, entry: Entry) -> None:
        """Add an entry after the others."""
        self.replace_entries((*self._entries, entry))

    def remove_entry(self, spiffe_id: str) -> None:
        """Withdraw an identity from every process that has it."""
        self.replace_entries([entry for entry in self._entries if entry.spiffe_id != spiffe_id])

    def prepare(self) -> None:
        """Publish the keys with which every trust domain signs after the next `rotate`."""
        for authority in self._authorities.values():
            authority.prepare()
        self.notify()

    def rotate(self) -> None:
        """Give every trust domain new keys and every workload new SVIDs; the old authorities are still trusted."""
        for authority in self._authorities.values():
            authority.rotate()
        self._issued.clear()
        self.notify()

    def drop_old(self) -> None:
        """Stop trusting every authority that no longer signs."""
        for authority in self._authorities.values():
            authority.drop_old()
        self.notify()

    def notify(self) -> None:
        """Have every stream check for changes."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    def entitlement(self, peer: Peer | None) -> Entitlement:
        """Return the entitlement of a process. ``None`` is a process that could not be identified.

        Raises:
            NoIdentityError: no entry matches, or the process is unidentified or has ended.
        """
        if peer is None or not peer.alive:
            raise NoIdentityError
        entries = _first_of_each_hint(entry for entry in self._entries if entry.selectors.match(peer))
        if not entries:
            raise NoIdentityError
        federations = sorted({domain for entry in entries for domain in entry.federates_with})
        return Entitlement(
            entries=entries,
            own={entry.spiffe_id.trust_domain: self._authority_of(entry) for entry in entries},
            federated={domain: self._authorities[domain] for domain in federations},
        )

    def svid(self, entry: Entry) -> IssuedSvid:
        """Return the entry's X.509-SVID; a new one once the old has passed half of its life."""
        svid = self._issued.get(entry)
        if svid is None or self.now >= half_life(svid):
            svid = self._issued[entry] = self._authority_of(entry).issue_x509(
                entry.spiffe_id, ttl_s=entry.ttl_s, dns_names=entry.dns_names, issued_at=int(self.now)
            )
        return svid

    def _authority_of(self, entry: Entry) -> TrustDomainAuthority:
        return self._authorities[entry.spiffe_id.trust_domain]


def half_life(svid: IssuedSvid) -> float:
    """Return the time at half of an SVID's life, when it is renewed, in seconds since the epoch."""
    issued_at = svid.leaf.not_valid_before_utc.timestamp() + BACKDATED_S
    return (issued_at + svid.not_after) / 2


def _first_of_each_hint(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the first entry of each hint, as SPIRE does.

    Hints are unique in an answer (Workload API section 5.2.1).
    """
    chosen: list[Entry] = []
    for entry in entries:
        if not entry.hint or all(other.hint != entry.hint for other in chosen):
            chosen.append(entry)
    return tuple(chosen)
