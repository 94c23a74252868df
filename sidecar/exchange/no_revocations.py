"""Replacement for `RevocationLists` where no issuer has a list: nothing is polled, nothing is revoked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from delegation_core.revocation import NOTHING, InForce, Kind


class NoRevocations:
    """The lists of no issuer, with the interface of ``RevocationLists``."""

    after_change: Callable[[], None]

    def in_force(self, _own: frozenset[str]) -> InForce:
        """Return an empty set of revocations."""
        return NOTHING

    def missing(self) -> list[str]:
        """Return no reason: no list can be stale."""
        return []

    def ages(self) -> Mapping[str, float]:
        """Return no age."""
        return {}

    def count(self) -> Mapping[str, int]:
        """Count none of each kind."""
        return dict.fromkeys(Kind, 0)

    def rows(self) -> list[dict[str, object]]:
        """Return no row for ``sidecar status``."""
        return []

    def numbers(self) -> str:
        """Return no number for a record."""
        return ""
