from __future__ import annotations

from typing import Any

import orjson
import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.human import Human
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.mcp.operation import McpOperation
from sidecar.features.operations.operation import Operation
from sidecar.proxy.journeys.refusal import refusal

SECRET = "eyJ-secret"
ANSWERABLE = [reason for reason in Reason if reason.answer.status]


def fields_of(error: SidecarError, **options: object) -> dict[bytes, bytes]:
    _, fields, _ = refusal(error, "r1", **options)  # type: ignore[arg-type]
    assert len({name for name, _ in fields}) == len(fields)
    return dict(fields)


@pytest.mark.parametrize("reason", ANSWERABLE)
def test_every_reason_is_told_by_status_header_and_body_and_its_detail_is_not(reason: Reason) -> None:
    status, fields, body = refusal(Denied(reason, SECRET), "r1")
    answer = reason.answer
    assert status == answer.status
    assert (b"delegation-reason", reason.encode()) in fields
    assert (b"content-type", b"application/problem+json") in fields
    assert (b"cache-control", b"no-store") in fields
    assert (b"delegation-request-id", b"r1") in fields
    assert orjson.loads(body) == {
        "type": f"urn:delegation-sidecar:reason:{reason}",
        "title": answer.text,
        "status": answer.status,
        "reason": reason,
        "request_id": "r1",
    }
    assert SECRET.encode() not in body + b"".join(value for _, value in fields)
    assert all(value.isascii() and b"\r" not in value and b"\n" not in value for _, value in fields)


@pytest.mark.parametrize(
    ("reason", "challenge"),
    [
        (Reason.NO_TOKEN, b"Bearer"),  # RFC 6750 section 3.1: no error code where no token was shown
        (Reason.TOKEN_EXPIRED, b'Bearer error="invalid_token", error_description="the token has expired"'),
        (
            Reason.INSUFFICIENT_SCOPE,
            b'Bearer error="insufficient_scope", '
            b'error_description="the token\'s scope does not cover this call", scope="a b"',
        ),
        (
            Reason.BAD_REQUEST,
            b'Bearer error="invalid_request", error_description="the request is not valid HTTP"',
        ),
        (
            Reason.STEP_UP_REQUIRED,
            b'Bearer error="insufficient_user_authentication", error_description="a more recent or stronger login of '
            b'the user is required", max_age="60", acr_values="phrh phr"',
        ),
        (Reason.ACTOR_MISMATCH, None),
        (Reason.NO_ROUTE, None),
        (Reason.OVERLOADED, None),
    ],
)
def test_the_challenge_says_what_the_standards_want_and_no_more(reason: Reason, challenge: bytes | None) -> None:
    human = Human(max_age_s=60, acr=("phrh", "phr"))
    assert fields_of(Denied(reason), scope=frozenset({"b", "a"}), human=human).get(b"www-authenticate") == challenge


def test_a_route_without_scopes_names_none() -> None:
    assert b"scope=" not in fields_of(Denied(Reason.INSUFFICIENT_SCOPE))[b"www-authenticate"]


@pytest.mark.parametrize("reason", [reason for reason in ANSWERABLE if reason.answer.status == 503])
def test_what_may_work_later_says_when(reason: Reason) -> None:
    assert int(fields_of(Unavailable(reason))[b"retry-after"]) > 0


def test_what_will_not_work_later_says_nothing_of_the_kind() -> None:
    assert b"retry-after" not in fields_of(Denied(Reason.POLICY_DENIED))


def test_a_refused_method_names_those_that_are_taken() -> None:
    assert fields_of(Denied(Reason.METHOD_REFUSED), allow={"POST", "GET"})[b"allow"] == b"GET, POST"
    assert fields_of(Denied(Reason.METHOD_REFUSED))[b"allow"] == b""
    assert b"allow" not in fields_of(Denied(Reason.NO_ROUTE), allow={"POST"})


def told(reason: Reason, protocol: Any = "a2a", *, message_id: Any = 7, **asked: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of the answer to a message that is refused."""
    message: Operation = {"a2a": A2aOperation, "mcp": McpOperation}[protocol]()
    message.message_id = message_id
    for name, value in asked.items():
        setattr(message, name, value)
    status, fields, body = refusal(Denied(reason, SECRET), "r1", scope={"a"}, asked=message)
    assert (b"delegation-reason", reason.encode()) in fields
    assert SECRET.encode() not in body
    return status, orjson.loads(body)


FORBIDDEN = [reason for reason in ANSWERABLE if reason.answer.status == 403]


@pytest.mark.parametrize("reason", FORBIDDEN)
def test_a_message_of_a2a_that_is_forbidden_is_answered_and_says_why(reason: Reason) -> None:
    status, body = told(reason)
    error = body["error"]
    assert (status, body["id"], error["code"]) == (200, 7, -32004)
    assert error["message"] == f"{reason.answer.text} ({reason})"
    (info,) = error["data"]
    assert (info["@type"], info["reason"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "UNSUPPORTED_OPERATION")
    assert info["metadata"] == {"reason": reason, "request_id": "r1"}
    assert told(reason, message_id=0)[0] == told(reason, message_id="")[0] == 200
    assert told(reason, message_id=None)[0] == 403  # a notification, or a message that was not read
    assert told(reason, "mcp")[0] == 403  # the official clients of MCP read it there
    assert told(reason, json_rpc=False)[0] == 403  # HTTP+JSON has the status for it


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.TASK_UNKNOWN, -32001), (Reason.OPERATION_MALFORMED, -32600), (Reason.PROTOCOL_VERSION, -32009)],
)
def test_a_message_of_a2a_that_is_wrong_is_answered_by_the_error_of_a2a(reason: Reason, code: int) -> None:
    status, body = told(reason)
    assert (status, body["error"]["code"]) == (200, code)
    assert told(reason, message_id=None)[0] == reason.answer.status


@pytest.mark.parametrize("status", [401, 413, 431, 502, 503, 504])
def test_what_a_client_handles_by_its_status_keeps_it(status: int) -> None:
    reasons = [reason for reason in ANSWERABLE if reason.answer.status == status]
    assert reasons
    for reason in reasons:
        assert told(reason)[0] == status


def test_a_refusal_by_http_json_has_the_form_of_each_version() -> None:
    status, body = told(Reason.POLICY_DENIED, json_rpc=False, message_id=None)
    error = body["error"]
    assert (status, error["code"], error["status"]) == (403, 403, "PERMISSION_DENIED")
    assert error["message"] == "the policy does not allow this call (policy_denied)"
    (info,) = error["details"]
    assert (info["domain"], info["reason"]) == ("a2a-protocol.org", "UNSUPPORTED_OPERATION")
    assert info["metadata"]["reason"] == "policy_denied"
    assert body.keys() == {"error"}
    old = told(Reason.POLICY_DENIED, json_rpc=False, message_id=None, first_version=True)[1]
    assert old.pop("error") == error
    assert old == {"type": "UnsupportedOperationError", "code": -32004, "message": error["message"]}
    no_token = told(Reason.NO_TOKEN, json_rpc=False, message_id=None, first_version=True)[1]
    assert no_token.keys() == {"error"}
    assert (no_token["error"]["details"][0]["domain"], no_token["error"]["status"]) == (
        "delegation-sidecar",
        "UNAUTHENTICATED",
    )
