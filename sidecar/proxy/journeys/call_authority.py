"""Finds the authority of an outbound call: a request in progress, a user's login, or the workload itself.

The request behind a handle may be in progress at another worker. A call to a host without a route is noted here too,
with the request behind its handle, or else with the requests in progress as candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.plan import Delegation
from delegation_core.records.record import MAX_ITEMS
from delegation_core.spiffe_id import SpiffeId
from sidecar.observe.access_log import Entry
from sidecar.observe.entry import OWN
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.credentials import credential_of, handles_of
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Request

if TYPE_CHECKING:
    from sidecar.proxy.journeys.remote_handles import RemoteHandles, RemoteRequest
    from sidecar.proxy.journeys.stray_credentials import Strays

Authority: TypeAlias = "tuple[ServedRequest | RemoteRequest | None, Delegation | None]"
"""The request in progress and its delegation. (None, delegation): a login. (None, None): the workload itself."""


class CallAuthority:
    """Finds the authority of calls. ``own_authorities`` are the Host values of the sidecar's own listener.

    ``features`` has the feature ``logins``. ``remote_handles`` resolves the handles of other workers; None: this is the
    only worker.
    """

    def __init__(
        self,
        *,
        handles: Handles,
        features: Mapping[str, Any],
        remote_handles: RemoteHandles | None,
        tasks: Tasks,
        metrics: Metrics,
        own_authorities: frozenset[str],
    ) -> None:
        self._handles = handles
        self._features = features
        self._remote_handles = remote_handles
        self._tasks = tasks
        self._metrics = metrics
        self._own_authorities = own_authorities

    def of_call(self, head: Request, snapshot: Snapshot, entry: Entry) -> Journey[Authority]:
        """Find the authority of a call to the next hop: a request, a user's login at an entry, or the workload itself.

        Raises:
            Denied: NO_REQUEST_CONTEXT, or as ``Handles.resolve``, ``Logins.again`` and ``Logins.verify``.
            Unavailable: as those.
        """
        credential = credential_of(head)
        if credential.handle is not None:
            if credential.token is not None and snapshot.policy.entry is not None:
                raise Denied(Reason.NO_REQUEST_CONTEXT, "a handle and a login token: two authorities for one call")
            try:
                served: ServedRequest | RemoteRequest
                if self._remote_handles is None:
                    served = self._handles.resolve(credential.handle)
                else:
                    served = yield from self._resolve(credential.handle)
            except Denied:
                if not self._handles.is_own(credential.handle):
                    raise
                _note_own(entry, snapshot.policy.workload)
                yield from self.refuse_strays(head, in_authorization=True)
                return None, None
            _note_served(served, entry)
            if served.delegation.entry:
                return served, (yield from self._features["logins"].again(served.delegation, snapshot, entry))
            return served, served.delegation
        return None, (yield from self._features["logins"].verify(credential.token or "", snapshot, entry))

    def note_attempt(self, head: Request, entry: Entry) -> Journey[None]:
        """Note a call to a host without a route in the record and the metrics: its host, and the requests behind it.

        A call to the sidecar's own listener is not noted.
        """
        if head.authority in self._own_authorities:
            return
        entry.host = head.authority
        self._metrics.attempts_to_leave += 1
        if not (yield from self.note_request(head, entry)) and any(map(self._handles.is_own, handles_of(head))):
            entry.op = OWN

    def note_request(self, head: Request, entry: Entry) -> Journey[bool]:
        """Note the request behind a refused call in the record. Return True if its handle names one.

        Otherwise note the requests in progress as candidates.
        """
        for handle in handles_of(head):
            if self._handles.is_own(handle):
                continue
            try:
                served = yield from self._resolve(handle)
            except SidecarError:
                continue
            _note_served(served, entry)
            return True
        # Also for the workload handle: the agent may be serving a request while it calls for itself.
        entry.candidates = self._handles.call_ids(MAX_ITEMS)
        return False

    def of_request(self, handle: str, snapshot: Snapshot, entry: Entry) -> Journey[Authority]:
        """Find the authority of the request behind a handle.

        Raises:
            Denied: as ``Handles.resolve`` and ``Logins.again``.
            Unavailable: as those.
        """
        served = yield from self._resolve(handle)
        _note_served(served, entry)
        if served.delegation.entry:
            return served, (yield from self._features["logins"].again(served.delegation, snapshot, entry))
        return served, served.delegation

    def refuse_strays(self, head: Request, *, in_authorization: bool) -> Journey[None]:
        """Refuse a call with a live handle in the wrong field: the handle would leak, or be a second authority.

        Raises:
            Denied: NO_REQUEST_CONTEXT, there is such a handle.
            Unavailable: as ``is_alive``.
        """
        from sidecar.proxy.journeys.stray_credentials import stray_handles  # few calls need it

        strays = stray_handles(head, in_authorization=in_authorization)
        if (yield from any_alive(strays, self._handles, self._remote_handles, self._tasks)):
            raise Denied(Reason.NO_REQUEST_CONTEXT, "a live handle in a field where none belongs")

    def _resolve(self, handle: str) -> Journey[ServedRequest | RemoteRequest]:
        """Return the request behind a handle, of this worker or another one."""
        remote_handles = self._remote_handles
        if remote_handles is None or (owner := remote_handles.owner_of(handle)) is None:
            return self._handles.resolve(handle)
        served: RemoteRequest = yield Async(self._tasks, partial(remote_handles.resolve, owner, handle))
        return served


def _note_own(entry: Entry, workload: SpiffeId) -> None:
    """Note in the record that the agent calls for itself: in its operation, or in its subject if that is taken."""
    if entry.op is None:
        entry.op = OWN
    else:
        entry.subject = str(workload)


def _note_served(served: ServedRequest | RemoteRequest, entry: Entry) -> None:
    """Note in the record the request that a call belongs to."""
    entry.call_in = served.call_in
    entry.after_request = served.ended_at is not None
    entry.attribute_served(served.facts)


def any_alive(strays: Strays, handles: Handles, remote_handles: RemoteHandles | None, tasks: Tasks) -> Journey[bool]:
    """Return True if a text is a live handle, or a longer one contains one of this worker. Raises as ``is_alive``."""
    for stray in strays.alone:
        if (yield from is_alive(stray, handles, remote_handles, tasks)):
            return True
    return any(map(handles.occurs_in, strays.longer))


def is_alive(handle: str, handles: Handles, remote_handles: RemoteHandles | None, tasks: Tasks) -> Journey[bool]:
    """Return True for a workload handle in force, and for the handle of a request, of any worker.

    Raises:
        Unavailable: NOT_READY, the worker that made the handle does not answer.
    """
    if handles.is_own(handle):
        return True
    owner = None if remote_handles is None else remote_handles.owner_of(handle)
    try:
        if remote_handles is None or owner is None:
            handles.find(handle)
        else:
            yield Async(tasks, partial(remote_handles.find, owner, handle))
    except Denied:
        return False
    return True
