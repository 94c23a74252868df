"""Failover between the endpoints of one token service: the first that works is asked, in the order of the settings.

All endpoints are replicas of one service: they have one issuer and must prove the same identity. Another one is asked
if the connection failed, its other end did not prove that identity, no answer came in time, or the answer says that the
replica cannot serve (502, 503, 504). Any other answer is final: a refusal by one replica is no reason to ask others.

An exchange has one deadline. While others are left, an attempt gets a part of it, so that a replica that hangs leaves
time for them: an equal part if another works, two if the others have failed lately. A form that may be sent only once
goes to another endpoint only if not a byte of it was sent.

Each call names the subject that it is for, since a service may be silent to one and answer all others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol

from delegation_core.errors import Reason, SidecarError, Unavailable
from sidecar.exchange.circuit import Circuit, Failure, Pause
from sidecar.identity.endpoint import EndpointAnswer, Trouble

MAX_REPLICAS: Final = 4  # each gets a part of an exchange's time, and has metrics of its own
CANNOT_SERVE: Final = frozenset({502, 503, 504})
_NO_ANSWER: Final = frozenset({Reason.STS_UNAVAILABLE, Reason.STS_TIMEOUT, Reason.STS_IDENTITY})
_OURS: Final = frozenset({Reason.NOT_READY, Reason.OVERLOADED})  # our own failures: they say nothing about the endpoint


class Caller(Protocol):
    """Sends a form to a token service (`StsChannel` to one endpoint, `Failover` to one of several)."""

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        """Return the answer, whatever its status. ``once``: never send it a second time. Raises SidecarError.

        ``subject``: the user or workload that the form is for; None if not known yet.
        """

    async def close(self) -> None:
        """Close its connections."""


class Unsent(Unavailable):
    """The connection failed before a byte of the form was sent: another endpoint may get it."""


class AllOpen(Unsent):
    """Every endpoint's circuit is open. Nothing was sent; do not retry within the same call."""


@dataclass(slots=True)
class Replica:
    """One endpoint. ``label`` names it in metrics; ``failure`` is the last one since it worked."""

    label: str
    url: str
    caller: Caller
    circuit: Circuit = field(default_factory=Circuit)
    failure: SidecarError | None = None


class EndpointState(NamedTuple):
    """State of one endpoint: the last ``failure``, and the seconds since the first one, if it fails now."""

    label: str
    url: str
    open: bool
    failing_s: int | None
    failure: SidecarError | None


class Failover:
    """A `Caller` over several endpoints, the preferred first. ``on_failure`` gets label and reason of each failure.

    ``timeout_s``: the deadline of the exchange, which cancels the call.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        timeout_s: float,
        on_failure: Callable[[str, Reason], None] = lambda _label, _reason: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replicas = tuple(replicas)
        self._timeout_s = timeout_s
        self._share_s = timeout_s / (len(replicas) + 1)
        self._on_failure = on_failure
        self._monotonic = monotonic

    @property
    def states(self) -> list[EndpointState]:
        """The state of each endpoint, in the order of the settings."""
        now = self._monotonic()
        states = []
        for one in self.replicas:
            one.circuit.forget(now)
            since = one.circuit.failing_since
            failing_s = None if since is None else int(now - since)
            failure = None if since is None else one.failure
            states.append(EndpointState(one.label, one.url, one.circuit.open, failing_s, failure))
        return states

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        """Return the answer of the first endpoint that works, else the answer (502, 503 or 504) of the last one.

        Raises:
            SidecarError: as `StsChannel.post_form`; `AllOpen` if no circuit admits the call.
        """
        for replica in self.replicas:
            replica.circuit.forget(self._monotonic())
        untried = list(self.replicas)
        failure: SidecarError | None = None
        answer: EndpointAnswer | None = None
        while (one := self._next(untried, subject)) is not None:
            untried.remove(one)
            try:
                answer = await self._attempt(one, form, authorization, once=once, subject=subject, untried=untried)
            except SidecarError as error:
                if error.reason not in _NO_ANSWER or not _may_go_on(error, once=once):
                    raise
                failure, answer = error, None
            else:
                if once or answer.status not in CANNOT_SERVE:
                    return answer
        if answer is None:
            raise failure or self._all_open()
        return answer

    async def close(self) -> None:
        """Close the connections to all endpoints."""
        for replica in self.replicas:
            await replica.caller.close()

    def _all_open(self) -> AllOpen:
        last = self.replicas[0].failure
        why = "" if last is None else f"{last.detail}; "
        return AllOpen(Reason.STS_UNAVAILABLE, f"{why}the circuit is open, and it is asked again within seconds")

    def _next(self, untried: Sequence[Replica], subject: Hashable) -> Replica | None:
        now = self._monotonic()
        usable = [one for one in untried if one.circuit.admits(now, subject)]
        return min(usable, key=lambda one: one.circuit.should_avoid(now, subject), default=None)

    def _patience_s(self, untried: Sequence[Replica], subject: Hashable) -> float | None:
        now = self._monotonic()
        left = [one.circuit for one in untried if one.circuit.admits(now, subject)]
        if not left:
            return None
        return 2 * self._share_s if all(one.should_avoid(now, subject) for one in left) else self._share_s

    async def _attempt(
        self,
        replica: Replica,
        form: bytes,
        authorization: str | None,
        *,
        once: bool,
        subject: Hashable,
        untried: Sequence[Replica],
    ) -> EndpointAnswer:
        """Send the form to one endpoint, and record the outcome in its circuit. ``once``: no limit on this attempt."""
        began = self._monotonic()
        probe = replica.circuit.begin(began, subject, at_most_s=self._timeout_s)
        failed = partial(self._failed, replica, subject, probe)
        late = Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT)
        try:
            async with asyncio.timeout(None if once else self._patience_s(untried, subject)):
                answer = await replica.caller.post_form(form, authorization, once=once, subject=subject)
        except TimeoutError as error:
            failed(Failure.SILENT, late)
            raise late from error
        except asyncio.CancelledError:
            if self._monotonic() - began >= self._share_s:  # most likely by the deadline of the exchange
                failed(Failure.SILENT, late)
            raise
        except SidecarError as error:
            if error.reason in _NO_ANSWER:
                failed(_kind_of(error), error)
            elif error.reason not in _OURS:
                self._worked(replica)
            raise
        if answer.status in CANNOT_SERVE:
            busy = Unavailable(Reason.STS_UNAVAILABLE, f"it answered with status {answer.status}")
            failed(Failure.ANSWERED, busy)
        else:
            self._worked(replica)
        return answer

    def _worked(self, replica: Replica) -> None:
        replica.circuit.record_success()
        replica.failure = None

    def _failed(
        self, replica: Replica, subject: Hashable, probe: Pause | None, failure: Failure, error: SidecarError
    ) -> None:
        replica.circuit.record_failure(self._monotonic(), subject, failure, probe=probe)
        replica.failure = error
        self._on_failure(replica.label, error.reason)


def _kind_of(error: SidecarError) -> Failure:
    """Return the kind of a failure. A wrong identity opens no circuit: each such call is refused by its own reason."""
    if error.reason is Reason.STS_IDENTITY:
        return Failure.ANSWERED
    return Failure.UNREACHED if isinstance(error, Unsent) else Failure.SILENT


def _may_go_on(error: SidecarError, *, once: bool) -> bool:
    """Return True if the form may be sent to another endpoint; with ``once`` only if no byte of it was sent."""
    return not once or isinstance(error, Unsent) or error.reason is Reason.STS_IDENTITY
