from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from delegation_core.records.record_schema import record_schema
from sidecar.injector.metrics import UNRECORDED, InjectorMetrics
from sidecar.injector.review import MAX_BYTES, ReviewError
from sidecar.injector.webhook import LARGE, Webhook
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import RecordRate
from tests.fakes.sink import FakeSink
from tests.injector.pods import bare, injection, patched, review
from tests.observe.schema import violations


class World:
    def __init__(self) -> None:
        self.sink = FakeSink()
        counts = Metrics()
        self.metrics = InjectorMetrics(counts)
        self.log = AccessLog(self.sink, run="0" * 16, metrics=counts)
        self.webhook = Webhook(injection(), log=self.log, metrics=self.metrics)

    def ask(self, pod: dict[str, Any], **request: Any) -> dict[str, Any]:
        answer = json.loads(self.webhook.answer(json.dumps(review(pod, **request)).encode()))
        found: dict[str, Any] = answer["response"]
        return found

    def counted(self, decision: str, rule: str) -> bool:
        return f'decision="{decision}",rule="{rule}"}} 1.0' in self.metrics.render().decode()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.log.close()


async def test_a_pod_is_injected_recorded_and_counted_and_asked_about_again_left_alone(world: World) -> None:
    response = world.ask(bare())
    pod = patched(bare(), json.loads(base64.b64decode(response["patch"])))
    again = world.ask(pod)
    assert (again["allowed"], "patch" in again) == (True, False)
    first, second = world.sink.wait_for_records(2)
    assert (first["event"], first["decision"], first["op"]) == ("pod.injected", "allow", "injected")
    assert (first["path"], first["request_id"]) == ("agents/planner-5d9f-", response["uid"])
    assert second["op"] == "unchanged"
    assert violations(first, record_schema()) == []
    assert world.counted("allow", "injected")
    assert world.counted("allow", "unchanged")


async def test_a_pod_that_breaks_a_rule_is_refused_recorded_and_counted(world: World) -> None:
    response = world.ask(bare({**bare()["spec"], "hostNetwork": True}))
    assert response["allowed"] is False
    assert response["status"]["message"].startswith("sidecar injector: rule host_namespace (layer pod): ")
    (record,) = world.sink.wait_for_records(1)
    assert (record["event"], record["decision"], record["op"]) == ("pod.refused", "deny", "host_namespace")
    assert "replicaset-controller" in str(record["detail"])
    assert violations(record, record_schema()) == []
    assert world.counted("deny", "host_namespace")


async def test_a_running_pod_s_debugger_is_judged_and_nothing_of_the_pod_is_changed(world: World) -> None:
    debugged = bare({**bare()["spec"], "ephemeralContainers": [{"name": "debug", "targetContainerName": "agent"}]})
    question = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": bare()}
    response = world.ask(debugged, **question)
    assert (response["allowed"], "patch" in response) == (True, False)  # it runs without a sidecar, since before
    debugged["spec"]["ephemeralContainers"][0]["targetContainerName"] = "sidecar"
    response = world.ask(debugged, **question)
    assert "rule shared_process_namespace (layer ephemeral container debug)" in response["status"]["message"]
    assert world.counted("allow", "unchanged")
    assert world.counted("deny", "shared_process_namespace")


async def test_a_dry_run_is_answered_alike_and_called_one(world: World) -> None:
    assert world.ask(bare(), dryRun=True)["patch"] == world.ask(bare())["patch"]
    dry, real = world.sink.wait_for_records(2)
    assert str(dry["detail"]).startswith("dry run; ")
    assert not str(real["detail"]).startswith("dry run; ")


async def test_what_is_no_question_gets_no_answer_and_a_record(world: World) -> None:
    with pytest.raises(ReviewError):
        world.webhook.answer(b"{}")
    (record,) = world.sink.wait_for_records(1)
    assert (record["event"], record["op"]) == ("pod.refused", "no_review")
    assert world.counted("deny", "no_review")


async def test_a_question_that_is_not_ours_is_answered_with_a_refusal(world: World) -> None:
    response = world.ask(bare(), operation="UPDATE")
    assert (response["allowed"], response["status"]["code"]) == (False, 400)
    assert response["uid"] == review()["request"]["uid"]
    (record,) = world.sink.wait_for_records(1)
    assert (record["event"], record["op"], record["request_id"]) == ("pod.refused", "no_review", response["uid"])


async def test_a_bug_refuses_the_pod_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("sidecar.injector.webhook.inject", broken)
    response = world.ask(bare())
    assert (response["allowed"], response["status"]["code"]) == (False, 502)
    assert "secret" not in json.dumps(response)
    (record,) = world.sink.wait_for_records(1)
    assert (record["event"], record["op"]) == ("pod.refused", "internal")
    assert world.counted("deny", "internal")


async def test_another_definition_counts_from_the_next_pod_on(world: World) -> None:
    world.webhook.injection = injection(optOut=True)
    assert world.ask(bare(labels={"delegation-sidecar.io/inject": "disabled"}))["allowed"] is True
    world.webhook.injection = injection()
    assert world.ask(bare(labels={"delegation-sidecar.io/inject": "disabled"}))["allowed"] is False


async def test_records_of_reviews_have_a_rate_and_every_review_is_answered_and_counted() -> None:
    world = World()
    world.webhook = Webhook(injection(), log=world.log, metrics=world.metrics, reviews=RecordRate(per_s=0.001, burst=2))
    for _ in range(5):
        assert world.ask(bare())["allowed"] is True
    await world.log.close()
    assert world.sink.data.count(b"\n") == 2
    text = world.metrics.render().decode()
    assert 'decision="allow",rule="injected"} 5.0' in text
    assert "sidecar_injector_records_suppressed 3.0" in text


async def test_the_sizes_of_a_pod_s_namespace_count(world: World) -> None:
    world.webhook.injection = injection(namespaces={"agents": {"cpuLimit": "1"}})
    for namespace, cpu in (("agents", "1"), ("other", None)):
        patch = json.loads(base64.b64decode(world.ask(bare(), namespace=namespace)["patch"]))
        assert patch[0]["value"][0]["resources"]["limits"].get("cpu") == cpu


# --- one HTTP request, without a socket


EMPTY: Mapping[str, str | None] = {}


def post(body: bytes, fields: Mapping[str, str | None] = EMPTY, *, arrived: bytes | None = None) -> web.Request:
    """Return a request as the API server sends it. A field of None is left out; ``arrived`` is what comes of it."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.connection_made(Mock())
    payload = StreamReader(protocol, MAX_BYTES)
    payload.feed_data(body if arrived is None else arrived)
    if arrived is None:
        payload.feed_eof()
    else:
        payload.set_exception(ConnectionResetError())
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    headers |= {name: value or "" for name, value in fields.items()}
    headers = {name: value for name, value in headers.items() if value}
    return make_mocked_request("POST", "/inject", headers, payload=payload, protocol=Mock())


@pytest.mark.parametrize("more", [0, 2 * LARGE], ids=["small", "large"])
async def test_a_review_that_arrives_whole_is_answered(world: World, more: int) -> None:
    body = json.dumps(review(bare())).encode() + b" " * more
    response = await world.webhook._post(post(body))
    assert (response.status, response.content_type) == (200, "application/json")
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["response"]["allowed"] is True


UNREAD: dict[str, tuple[dict[str, str | None], type[web.HTTPException]]] = {
    "another type": ({"Content-Type": "text/plain"}, web.HTTPUnsupportedMediaType),
    "an encoded body": ({"Content-Encoding": "gzip"}, web.HTTPUnsupportedMediaType),
    "no length": ({"Content-Length": None}, web.HTTPLengthRequired),
    "too large": ({"Content-Length": str(MAX_BYTES + 1)}, web.HTTPRequestEntityTooLarge),
}


@pytest.mark.parametrize(("fields", "refusal"), UNREAD.values(), ids=UNREAD.keys())
async def test_a_review_with_one_field_changed_is_not_read_but_recorded(
    world: World, fields: dict[str, str | None], refusal: type[web.HTTPException]
) -> None:
    with pytest.raises(refusal):
        await world.webhook._count_refused(post(json.dumps(review(bare())).encode(), fields), world.webhook._post)
    assert world.counted("deny", "no_review")


@pytest.mark.parametrize("missing", [1, 50])
async def test_a_review_that_does_not_arrive_whole_is_not_answered(world: World, missing: int) -> None:
    body = json.dumps(review(bare())).encode()
    response = await world.webhook._post(post(body, arrived=body[:-missing]))
    assert (response.status, response.text) == (400, "the body did not arrive\n")
    assert world.counted("deny", "no_review")
    assert (await world.webhook._post(post(b"{}"))).status == 400


async def test_a_review_that_could_not_be_recorded_is_not_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccessLog, "healthy", property(lambda _: False))
    assert (await world.webhook._post(post(json.dumps(review(bare())).encode()))).status == 503
    assert world.counted("deny", UNRECORDED)
