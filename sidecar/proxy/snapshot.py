"""The policy in force: one immutable snapshot, None while this workload does not know who it is."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.delegation.policy import Policy
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Reason, Unavailable

MakePolicy = Callable[[SpiffeId, int], Policy]


class Policies:
    """Holds the snapshot. ``make`` builds one from the settings for a workload's SPIFFE ID and a running number."""

    def __init__(self, make: MakePolicy) -> None:
        self._make = make
        self._number = 0
        self.current: Policy | None = None

    def now(self) -> Policy:
        """The policy to decide by.

        Raises:
            Unavailable: NOT_READY, there is no identity, so there is nobody to decide for.
        """
        policy = self.current
        if policy is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        return policy

    def follow(self, workload: SpiffeId | None) -> None:
        """Our SPIFFE ID is now ``workload``. A mere renewal of the SVID changes nothing."""
        if workload is None:
            self.current = None
        elif self.current is None or self.current.workload != workload:
            self._number += 1
            self.current = self._make(workload, self._number)
