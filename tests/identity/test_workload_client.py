from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from sidecar.identity import workload_client, workload_pb
from sidecar.identity.workload_client import IdentityDeniedError, WorkloadApiClient, WorkloadApiError
from sidecar.identity.workload_settings import WorkloadAddress

FAILURES = {
    "denied": (GRPCError(Status.PERMISSION_DENIED, "no"), IdentityDeniedError, "denies this workload an identity: no"),
    "another status": (GRPCError(Status.UNAVAILABLE, "no"), WorkloadApiError, "answered UNAVAILABLE: no"),
    "no socket": (FileNotFoundError(), WorkloadApiError, "does not exist"),
    "silence": (TimeoutError(), WorkloadApiError, "did not answer in time"),
    "a refused connection": (ConnectionRefusedError(), WorkloadApiError, "cannot be reached: ConnectionRefusedError"),
    "a lost connection": (StreamTerminatedError("x"), WorkloadApiError, "was lost"),
    "another protocol": (ProtocolError("x"), WorkloadApiError, "is malformed: ProtocolError"),
    "another message": (DecodeError("x"), WorkloadApiError, "is malformed: DecodeError"),
}


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> WorkloadApiClient:
    def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(workload_client, "UnaryUnaryMethod", fail)
    monkeypatch.setattr(workload_client, "UnaryStreamMethod", fail)
    return WorkloadApiClient(WorkloadAddress(path="/run/x"), first_message_timeout_s=5, call_timeout_s=5)


@pytest.mark.parametrize("case", FAILURES)
async def test_each_failure_has_its_error_and_only_a_denial_is_one(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    error, kind, words = FAILURES[case]
    client = failing(monkeypatch, error)
    ended = await client.stream("FetchX509SVID", workload_pb.X509SVIDRequest(), object, lambda _: None)
    with pytest.raises(WorkloadApiError) as raised:
        await client.call("FetchJWTSVID", workload_pb.JWTSVIDRequest(), object)
    for told in (ended, raised.value):
        assert type(told) is kind
        assert words in str(told)


async def test_an_error_of_ours_is_no_failure_of_the_workload_api(monkeypatch: pytest.MonkeyPatch) -> None:
    client = failing(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        await client.call("FetchJWTSVID", workload_pb.JWTSVIDRequest(), object)
