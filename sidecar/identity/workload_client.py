"""Calls to a SPIFFE Workload API: one channel per call, and a distinct error for each failure.

A channel per attempt has no memory of earlier failures, so the back-off is entirely ours: a long-lived channel waits
longer and longer before it notices that its server is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from sidecar.identity.workload_pb import SECURITY_HEADER, SERVICE
from sidecar.identity.workload_settings import WorkloadAddress

T = TypeVar("T")

_METADATA: Final = {SECURITY_HEADER: "true"}
_FAILURES: Final = (OSError, GRPCError, StreamTerminatedError, ProtocolError, DecodeError)  # TimeoutError is an OSError


class WorkloadApiError(Exception):
    """A call failed; a later retry may succeed."""


class IdentityDeniedError(WorkloadApiError):
    """The Workload API says that this process has no identity (any more): PERMISSION_DENIED."""


class WorkloadApiClient:
    """Client of a Workload API. Times in seconds."""

    def __init__(self, address: WorkloadAddress, *, first_message_timeout_s: float, call_timeout_s: float) -> None:
        self._address = address
        self._first_message_timeout_s = first_message_timeout_s
        self._call_timeout_s = call_timeout_s

    async def stream(
        self, method: str, request: Any, reply_type: Any, on_message: Callable[[Any], None]
    ) -> WorkloadApiError:
        """Hand over each message of a stream until it ends; return the error that ended it.

        A server that accepts and stays silent counts as a failure: the first message comes at once
        (Workload API section 4.3).
        """
        return await _cancellable(self._stream(method, request, reply_type, on_message))

    async def _stream(
        self, method: str, request: Any, reply_type: Any, on_message: Callable[[Any], None]
    ) -> WorkloadApiError:
        try:
            async with self._channel() as channel:
                call = UnaryStreamMethod(channel, SERVICE + method, type(request), reply_type)
                # The status is raised when this block exits; recv_message() only reports the end.
                async with call.open(metadata=_METADATA) as stream:
                    async with asyncio.timeout(self._first_message_timeout_s):
                        await stream.send_message(request, end=True)
                        message = await stream.recv_message()
                    while message is not None:
                        on_message(message)
                        message = await stream.recv_message()
        except _FAILURES as error:
            return _error_of(error)
        return WorkloadApiError("the Workload API ended the stream")

    async def call(self, method: str, request: Any, reply_type: Any) -> Any:
        """Make a call with one answer.

        Raises:
            IdentityDeniedError: PERMISSION_DENIED.
            WorkloadApiError: any other failure, or no answer in time.
        """
        return await _cancellable(self._call(method, request, reply_type))

    async def _call(self, method: str, request: Any, reply_type: Any) -> Any:
        try:
            async with self._channel() as channel, asyncio.timeout(self._call_timeout_s):
                return await UnaryUnaryMethod(channel, SERVICE + method, type(request), reply_type)(
                    request, metadata=_METADATA
                )
        except _FAILURES as error:
            raise _error_of(error) from error

    def _channel(self) -> Channel:
        if self._address.path is not None:
            return Channel(path=self._address.path)
        return Channel(self._address.host, self._address.port)


async def _cancellable(call: Coroutine[Any, Any, T]) -> T:
    """Make a call in a task of its own, so that its caller can be cancelled at any moment.

    grpclib ends a call whose connection is lost by cancelling its task, and takes every cancellation for its own: a
    cancellation from outside at the same time is lost, and a sidecar that stops together with its Workload API would
    not end.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()


def _error_of(error: Exception) -> WorkloadApiError:
    """Return the error for the operator. Of the server's text it holds only a status message."""
    match error:
        case GRPCError(status=Status.PERMISSION_DENIED):
            return IdentityDeniedError(f"the Workload API denies this workload an identity: {error.message}")
        case GRPCError():
            return WorkloadApiError(f"the Workload API answered {error.status.name}: {error.message}")
        case FileNotFoundError():
            return WorkloadApiError("the Workload API's socket does not exist")
        case TimeoutError():
            return WorkloadApiError("the Workload API did not answer in time")
        case OSError():
            return WorkloadApiError(f"the Workload API cannot be reached: {error.strerror or type(error).__name__}")
        case StreamTerminatedError():
            return WorkloadApiError("the connection to the Workload API was lost")
        case _:
            return WorkloadApiError(f"the Workload API's answer is malformed: {type(error).__name__}")
