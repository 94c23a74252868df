"""Operations of A2A, in its three bindings: JSON-RPC, HTTP+JSON and gRPC."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import ClassVar, Final
from urllib.parse import parse_qsl

import orjson

from delegation_core import a2a, a2a_grpc
from delegation_core.a2a_tasks import NOTHING_NAMED, Named, tasks_named
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.grpc_messages import HEAD
from delegation_core.json_rpc import MessageRefused, RpcMessage, parse_plain_body
from delegation_core.operation import RouteProtocol
from delegation_core.protobuf import length_field, number_field
from delegation_core.push_urls import check_push_urls
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.target import CanonicalTarget
from sidecar.features.a2a.errors import DOMAIN, ERROR_INFO, A2aError, a2a_error
from sidecar.features.operations.operation import RPC_REFUSED, Operation, refuse_body, text_of
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.whole_body import BodyUpTo
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Field, Request
from sidecar.wire.stream import Stream

_OUR_DOMAIN: Final = "delegation-sidecar"
_STATUS_NAMES: Final = {  # google.rpc.Code, by HTTP status
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    504: "DEADLINE_EXCEEDED",
}
# Codes of gRPC: some SDKs, such as Go's, recognise an error of A2A by its code and its ErrorInfo together.
_GRPC_CODES: Final = {Reason.TASK_UNKNOWN: 5, Reason.CONTEXT_UNKNOWN: 3}  # NOT_FOUND, INVALID_ARGUMENT


class A2aOperation(Operation):
    """Operation of an A2A request. ``named`` are the tasks and contexts that the request names.

    ``first_page``: a request for a list has no page token. ``first_version``: the request uses A2A 0.3.
    """

    __slots__ = ("first_page", "first_version", "named", "task")

    protocol: ClassVar[RouteProtocol] = "a2a"

    def __init__(self) -> None:
        super().__init__()
        self.first_page = True
        self.first_version = False
        self.task: str | None = None
        self.named: Named = NOTHING_NAMED

    def _check(self, route: InboundRoute | OutboundRoute) -> None:
        if self.message is not None:
            check_push_urls(self.key, self.message.params, route.a2a.push_urls)

    def _read(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: InboundRoute | OutboundRoute,
        below: str | None,
    ) -> Journey[None]:
        fields = [value.decode("latin-1") for value in head.all(b"a2a-version")]
        if stream.http2 and is_grpc(head):
            yield from self._read_grpc(stream, head, target, route, fields)
            return
        if a2a_grpc.is_path_of_service(target.path):
            raise MessageRefused("the call is not one of gRPC over HTTP/2")
        path = target.path if below is None else below
        self.json_rpc = path in {"", "/"} or (below is None and not a2a.is_path_of_operation(path))
        parameters = parse_qsl(target.query.decode("latin-1"), keep_blank_values=True)
        query = [value for name, value in parameters if name.casefold() == "a2a-version"]
        self.first_version = a2a.is_first_version(fields, query)
        if self.json_rpc:
            if head.method != "POST":
                raise MessageRefused("JSON-RPC is sent by POST")
            message = yield from self._read_message(stream, head, route)
            a2a.check_version(fields, query)  # after the message's id is known, for the answer
            self.key = a2a.operation_of(message)
            self.named = tasks_named(self.key, message, None, parameters)
            self.first_page = a2a.is_first_page(message.params.items())
            return
        a2a.check_version(fields, query)
        self.key, self.task = a2a.operation_of_path(head.method, path, anywhere=below is None)
        if head.method == "POST":
            body = yield from self._read_body(stream, head, route, may_be_empty=True)
            if body:
                self.message = RpcMessage(None, None, parse_plain_body(body, max_bytes=route.max_message_bytes))
                a2a.check_params(self.message)
        else:
            refuse_body(head)
        self.named = tasks_named(self.key, self.message, self.task, parameters)
        self.first_page = a2a.is_first_page(parameters)

    def _read_grpc(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: InboundRoute | OutboundRoute,
        versions: Iterable[str],
    ) -> Journey[None]:
        """Read a gRPC call. Its path names the operation, independently of the endpoint of the other bindings.

        Raises:
            Denied: as ``find``; METHOD_REFUSED, not POST.
        """
        self.grpc, self.json_rpc = True, False
        if head.method != "POST":
            raise Denied(Reason.METHOD_REFUSED, "calls of gRPC use POST")
        self.first_version = a2a_grpc.is_first_version(target.path)  # first: 0.3 has another form of refusals
        call = a2a_grpc.call_of_path(target.path, target.query)
        a2a_grpc.check_version(versions, call.version)
        a2a_grpc.check_media(head.all(b"content-type"), (*head.all(b"grpc-encoding"), *head.all(b"content-encoding")))
        if not head.has_body:
            raise MessageRefused("the request has no body")
        body: bytes = yield BodyUpTo(stream, min(route.max_message_bytes, self.max_bytes) + HEAD)
        self.message = a2a_grpc.message_of(body, call.method)
        self.key = call.method.operation
        self.named = tasks_named(self.key, self.message, None)
        self.first_page = a2a.is_first_page(self.message.params.items())

    # --- refusals

    def answer(self, error: SidecarError, request_id: str) -> tuple[int, bytes]:
        """Return status and body of a refusal.

        The official clients read an error of JSON-RPC only with status 200, which agents use too.
        """
        if not self.json_rpc:
            return error.answer.status, orjson.dumps(self._rest_error(error, request_id))
        answers_message = self.message_id is not None and a2a_error(error) is not None
        status = 200 if answers_message else error.answer.status
        return status, orjson.dumps(self._rpc_error(error, request_id))

    def grpc_status(self, error: SidecarError, code: int, text: str, request_id: str) -> tuple[int, str, list[Field]]:
        """Return code, message and additional trailers of a gRPC refusal.

        A2A's error is in the details, where clients of 1.0 look for it; clients of 0.3 look in the message.
        """
        known = a2a_error(error)
        if known is None:
            return code, text, []
        code = _GRPC_CODES.get(error.reason, code)
        if self.first_version:
            text = f"{known.name}: {text}"
        # Go's SDK for 0.3 takes PERMISSION_DENIED with an ErrorInfo for an internal error.
        if error.reason in _GRPC_CODES or not self.first_version:
            return code, text, [(b"grpc-status-details-bin", _grpc_details(code, text, known, error, request_id))]
        return code, text, []

    def _rpc_code(self, error: SidecarError) -> int:
        known = a2a_error(error)
        return RPC_REFUSED if known is None else known.code

    def _rpc_data(self, error: SidecarError, request_id: str) -> object:
        return [_error_info(error, request_id)]

    def _rest_error(self, error: SidecarError, request_id: str) -> dict[str, object]:
        """Return the error body of HTTP+JSON: a ``google.rpc.Status`` (A2A 1.0 section 11.6).

        For 0.3 it also has the error's name, which the official Python client reads, and its code, for JavaScript.
        """
        status, known = error.answer.status, a2a_error(error)
        body: dict[str, object] = {
            "error": {
                "code": status,
                "status": _STATUS_NAMES.get(status, "UNAVAILABLE"),
                "message": text_of(error),
                "details": [_error_info(error, request_id)],
            }
        }
        if self.first_version and known is not None:
            body |= {"type": known.name, "code": known.code, "message": text_of(error)}
        return body


def _error_info(error: SidecarError, request_id: str) -> dict[str, object]:
    known = a2a_error(error)
    return {
        "@type": ERROR_INFO,
        "reason": error.reason.upper() if known is None else known.reason,
        "domain": _OUR_DOMAIN if known is None else DOMAIN,
        "metadata": {"reason": error.reason, "request_id": request_id},
    }


def _grpc_details(code: int, text: str, known: A2aError, error: SidecarError, request_id: str) -> bytes:
    """Return a ``google.rpc.Status`` with a ``google.rpc.ErrorInfo`` (A2A 1.0 section 10.6)."""
    metadata = [
        length_field(3, length_field(1, name) + length_field(2, value))
        for name, value in (("reason", error.reason), ("request_id", request_id))
    ]
    info = length_field(1, known.reason) + length_field(2, DOMAIN) + b"".join(metadata)
    packed = length_field(1, ERROR_INFO) + length_field(2, info)
    return b64encode(number_field(1, code) + length_field(2, text) + length_field(3, packed)).rstrip(b"=")
