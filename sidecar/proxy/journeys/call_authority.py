"""The authority of a call: the request that its handle stands for, a user's login, or the workload's own.

A handle that stands for a request is perhaps another worker's. An attempt to leave the mesh is noted here too: it names
the request behind its handle, or those being served.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sidecar.delegation.plan import Delegation
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.observe.access_log import Entry
from sidecar.observe.entry import OWN
from sidecar.observe.metrics import Metrics
from sidecar.observe.record import MAX_ITEMS
from sidecar.proxy.journeys.credentials import credential_of, handles_of
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Request

if TYPE_CHECKING:
    from sidecar.proxy.journeys.remote_handles import RemoteHandles, RemoteRequest
    from sidecar.proxy.journeys.stray_credentials import Strays

Authority: TypeAlias = "tuple[ServedRequest | RemoteRequest | None, Delegation | None]"
"""The request being served and its delegation. (None, a delegation): of a login; (None, None): the workload's own."""


class CallAuthority:
    """Finds the authority of calls. ``own_authorities`` are our listener's names.

    ``features`` has the ``logins`` of an entry. ``remote_handles`` asks the other workers for their handles; None: this
    is the only worker.
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
            Denied: NO_REQUEST_CONTEXT, or as ``Handles.resolve``, ``Logins.again`` and ``Logins.verify`` say.
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
        """Note an attempt to leave: it is evidence. Name the host, and whose request it was or may have been."""
        if head.authority in self._own_authorities:
            return
        entry.host = head.authority
        self._metrics.attempts_to_leave += 1
        if not (yield from self.note_request(head, entry)) and any(map(self._handles.is_own, handles_of(head))):
            entry.op = OWN

    def note_request(self, head: Request, entry: Entry) -> Journey[bool]:
        """Note whose request a call belongs to, or may belong to, that is refused before its authority is asked for."""
        for handle in handles_of(head):
            if self._handles.is_own(handle):
                continue
            try:
                served = yield from self._resolve(handle)
            except SidecarError:
                continue
            _note_served(served, entry)
            return True
        # With the workload handle too: it says nothing of the request that the agent was serving.
        entry.candidates = self._handles.call_ids(MAX_ITEMS)
        return False

    def of_request(self, handle: str, snapshot: Snapshot, entry: Entry) -> Journey[Authority]:
        """Find the authority of the request that a handle stands for."""
        served = yield from self._resolve(handle)
        _note_served(served, entry)
        if served.delegation.entry:
            return served, (yield from self._features["logins"].again(served.delegation, snapshot, entry))
        return served, served.delegation

    def refuse_strays(self, head: Request, *, in_authorization: bool) -> Journey[None]:
        """Refuse a call with a live handle where none belongs: it would leave, or be a second authority."""
        from sidecar.proxy.journeys.stray_credentials import stray_handles  # few calls need it

        strays = stray_handles(head, in_authorization=in_authorization)
        if (yield from any_alive(strays, self._handles, self._remote_handles, self._tasks)):
            raise Denied(Reason.NO_REQUEST_CONTEXT, "a live handle in a field where none belongs")

    def _resolve(self, handle: str) -> Journey[ServedRequest | RemoteRequest]:
        """The request that a handle stands for, perhaps at another worker."""
        remote_handles = self._remote_handles
        if remote_handles is None or (owner := remote_handles.owner_of(handle)) is None:
            return self._handles.resolve(handle)
        served: RemoteRequest = yield Async(self._tasks, partial(remote_handles.resolve, owner, handle))
        return served


def _note_own(entry: Entry, workload: SpiffeId) -> None:
    """Note that the agent calls for itself. Where the record names an operation, its subject tells that."""
    if entry.op is None:
        entry.op = OWN
    else:
        entry.subject = str(workload)


def _note_served(served: ServedRequest | RemoteRequest, entry: Entry) -> None:
    """Note in the record whose request a call belongs to."""
    entry.call_in = served.call_in
    entry.after_request = served.ended_at is not None
    entry.attribute_served(served.facts)


def any_alive(strays: Strays, handles: Handles, remote_handles: RemoteHandles | None, tasks: Tasks) -> Journey[bool]:
    """Tell if one of these is a live handle, or contains one of this worker's. Raises as ``is_alive``."""
    for stray in strays.alone:
        if (yield from is_alive(stray, handles, remote_handles, tasks)):
            return True
    return any(map(handles.within, strays.longer))


def is_alive(handle: str, handles: Handles, remote_handles: RemoteHandles | None, tasks: Tasks) -> Journey[bool]:
    """Tell if a handle, perhaps of another worker, stands for a request, or is the workload's own.

    Raises:
        Unavailable: nobody can tell.
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
