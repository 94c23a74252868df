from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sidecar.injector.review import MAX_BYTES, ReviewError, allow, parse_review, refuse
from tests.injector.pods import bare, review


def body(**request: Any) -> bytes:
    return json.dumps(review(**request)).encode()


def test_a_question_is_read() -> None:
    found = parse_review(body(dryRun=True))
    assert (found.namespace, found.name, found.dry_run) == ("agents", "planner-5d9f-", True)
    assert found.user == "system:serviceaccount:kube-system:replicaset-controller"
    assert found.pod == bare()


@pytest.mark.parametrize("subresource", ["resize", "ephemeralcontainers"])
def test_a_question_about_a_running_pod_has_what_it_was(subresource: str) -> None:
    old = bare(name="planner")
    found = parse_review(body(operation="UPDATE", subResource=subresource, oldObject=old))
    assert (found.subresource, found.pod, found.old) == (subresource, bare(), old)
    assert parse_review(body()).subresource == ""


def deep(levels: int) -> dict[str, Any]:
    value: Any = {}
    for _ in range(levels):
        value = {"x": value}
    return bare({"affinity": value})


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "an array": b"[]",
    "not Unicode": b'{"a": "\xff"}',
    "a number that is none": b'{"a": NaN}',
    "too many parts": b'{"a": [' + b"[]," * 70_000 + b"[]]}",
    "two requests": body().replace(b'"request":', b'"request": {}, "request":', 1),
    "two names, deep inside": body().replace(b'"image":', b'"image": "a:1", "image":', 1),
    "an integer too long": body().replace(b"1000", b"1" * 40),
    "too deep": body(object=deep(60)),
    "far too deep": b'{"a":' * 100_000,
    "too large": b" " * (MAX_BYTES + 1),
    "another version": body().replace(b"admission.k8s.io/v1", b"admission.k8s.io/v1beta1"),
    "another kind": body().replace(b'"AdmissionReview"', b'"ConversionReview"'),
    "an answer": json.dumps({**review(), "response": {"allowed": True}}).encode(),
    "no request": json.dumps({**review(), "request": None}).encode(),
    "no uid": body(uid=""),
    "a long uid": body(uid="x" * 129),
    "a uid of another type": body(uid=7),
    "no namespace": body(namespace=""),
    "two namespaces": body(object=bare(namespace="kube-system")),
    "another resource": body(kind={"group": "apps", "version": "v1", "kind": "Deployment"}),
    "an object of another kind": body(object={**bare(), "kind": "Deployment"}),
    "no object": body(object=None),
    "a request that is a list": json.dumps({**review(), "request": []}).encode(),
    "a plural of something else": body(resource={"group": "", "version": "v1", "resource": "services"}),
    "an object that is a list": body(object=[]),
    "a change": body(operation="UPDATE"),
    "a deletion": body(operation="DELETE", object=None, oldObject=bare()),
    "a connection": body(operation="CONNECT", subResource="exec", object={"kind": "PodExecOptions"}),
    "a subresource": body(subResource="ephemeralcontainers"),
    "another subresource": body(operation="UPDATE", subResource="status"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_such_question_is_an_error_that_quotes_nothing(hostile: bytes) -> None:
    with pytest.raises(ReviewError) as error:
        parse_review(hostile)
    assert len(str(error.value)) < 80


def test_an_error_about_a_request_that_can_be_answered_has_its_uid() -> None:
    for wrong in ("a change", "a subresource", "a connection", "an object that is a list", "two namespaces"):
        with pytest.raises(ReviewError) as error:
            parse_review(HOSTILE[wrong])
        assert error.value.uid == review()["request"]["uid"]
    with pytest.raises(ReviewError) as error:
        parse_review(HOSTILE["no JSON"])
    assert error.value.uid == ""


def test_a_pod_of_real_depth_is_read() -> None:
    assert parse_review(body(object=deep(20))).pod == deep(20)


def test_an_answer_carries_uid_patch_and_warnings() -> None:
    question = parse_review(body())
    answer = json.loads(allow(question, [{"op": "add", "path": "/x", "value": 1}], ["mind this"]))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == (question.uid, True, "JSONPatch")
    assert json.loads(base64.b64decode(response["patch"])) == [{"op": "add", "path": "/x", "value": 1}]
    assert response["warnings"] == ["mind this"]
    assert "patch" not in json.loads(allow(question, [], []))["response"]


def test_a_refusal_says_why() -> None:
    response = json.loads(refuse("7", "rule x"))["response"]
    assert (response["uid"], response["allowed"]) == ("7", False)
    assert response["status"] == {"code": 403, "reason": "Forbidden", "message": "rule x"}
    response = json.loads(refuse("7", "x" * 100_000, code=400))["response"]
    assert (response["status"]["code"], response["status"]["reason"]) == (400, "BadRequest")
    assert len(response["status"]["message"]) < 3000
