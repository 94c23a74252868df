"""Hostile reviews to a running webhook, over real TLS: each has its answer, and the next lawful pod is injected."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import ssl
from typing import Any, Final

import pytest

from sidecar.injector.inject import inject
from sidecar.injector.injection import parse_injection
from tests.injector.pods import RENDERED, injection, patched, review, statically
from tests.injector.serving import HOST, Running
from tests.injector.test_hostile import EVERYWHERE, OTHERS, QUESTION, at, sound
from tests.injector.test_review import HOSTILE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DEFINITION: Final = parse_injection(RENDERED)  # as the process reads it

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Posts on one connection while the webhook keeps it open."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._context = ssl.create_default_context(cadata=running.authority.bundle_pem().decode())
        self._stream: Stream | None = None

    async def post(self, body: bytes, content_type: str = "application/json") -> tuple[int, bytes]:
        if self._stream is None:
            self._stream = await asyncio.open_connection(
                "127.0.0.1", self._running.port, ssl=self._context, server_hostname=HOST
            )
        reader, writer = self._stream
        head = (
            f"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        async with asyncio.timeout(10):
            status = int((await reader.readline()).split()[1])
            fields = (await reader.readuntil(b"\r\n\r\n")).lower()
            (length,) = [int(line.split(b":")[1]) for line in fields.splitlines() if line.startswith(b"content-length")]
            answer = await reader.readexactly(length)
        if b"connection: close" in fields or status in (413, 415):
            self.close()
        return status, answer

    def close(self) -> None:
        if self._stream is not None:
            self._stream[1].transport.abort()
            self._stream = None


async def is_well(client: Client) -> None:
    status, answer = await client.post(json.dumps(review()).encode())
    response = json.loads(answer)["response"]
    assert (status, response["allowed"]) == (200, True)
    sound(patched(review()["request"]["object"], json.loads(base64.b64decode(response["patch"]))), injection())


async def test_what_is_no_question_is_refused_and_the_next_is_answered(running: Running) -> None:
    client = Client(running)
    for name, body in HOSTILE.items():
        status, answer = await client.post(body)
        if status == 200:
            response = json.loads(answer)["response"]
            assert (response["allowed"], response["status"]["code"]) == (False, 400), name
            assert response["uid"] == review()["request"]["uid"], name
        else:
            assert status in (400, 413), name
            assert len(answer) < 200, name
        await is_well(client)
    client.close()


CONTENT_TYPES: Final = (
    "text/plain",
    "application/xml",
    "application/json-patch+json",
    "application/vnd.kubernetes.protobuf",
    "json",
    "",
)


async def test_another_content_type_is_refused(running: Running) -> None:
    client = Client(running)
    for content_type in CONTENT_TYPES:
        assert (await client.post(json.dumps(review()).encode(), content_type))[0] == 415, content_type
        await is_well(client)
    client.close()


async def test_every_place_of_a_question_may_be_anything(running: Running) -> None:
    """A sample of the cases without sockets, in one long conversation."""
    client = Client(running)
    for number, (name, other) in enumerate(OTHERS.items()):
        for way in EVERYWHERE[number % 5 :: 5]:
            question = copy.deepcopy(QUESTION)
            at(question, way[:-1])[way[-1]] = other
            status, answer = await client.post(json.dumps(question).encode())
            assert status in (200, 400), (name, way)
            if status == 200:
                found: dict[str, Any] = json.loads(answer)
                assert (found["apiVersion"], found["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
                assert found["response"]["uid"] == question["request"]["uid"]
                if found["response"]["allowed"]:
                    patch = json.loads(base64.b64decode(found["response"]["patch"]))
                    made = patched(question["request"]["object"], patch)
                    sound(made, injection())
                    assert inject(made, DEFINITION).patch == []
    await is_well(client)
    client.close()


async def test_a_pod_with_a_sidecar_that_is_nearly_ours_is_refused_over_tls_too(running: Running) -> None:
    client = Client(running)
    env = [*injection().container["env"], {"name": "LD_PRELOAD", "value": "/x"}]
    status, answer = await client.post(json.dumps(review(statically(env=env))).encode())
    assert (status, json.loads(answer)["response"]["allowed"]) == (200, False)
    status, answer = await client.post(json.dumps(review(statically())).encode())
    assert (status, json.loads(answer)["response"]["allowed"]) == (200, True)
    client.close()
