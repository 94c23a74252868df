"""The official Python clients of OpenAI and Anthropic, and PyGithub, pointed at a sidecar that holds the key."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.hops import Hops
from tests.integration.test_outside import SECRET, Provider, chunk, provider, start
from tests.integration.world import Agent

__all__ = ["provider"]
pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

CALLER: Final = Path(__file__).parent / "apps/sdk_caller.py"
PYTHON: Final = Path(os.environ.get("SDK_PYTHON", Path(__file__).parents[2] / "build/sdk/bin/python"))
CLIENTS: Final[dict[str, tuple[str, list[str]]]] = {  # the field of the key, and the paths
    "openai": ("authorization", ["/v1/chat/completions"]),
    "anthropic": ("x-api-key", ["/v1/messages"]),
    "github": ("authorization", ["/user"]),
}


def answer(kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def events(*told: tuple[str | None, object]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    lines = [
        (f"event: {name}\n" if name else "") + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
        for name, data in told
    ]
    return head + b"".join(chunk(line.encode()) for line in lines) + b"0\r\n\r\n"


def openai_says(_head: bytes, body: bytes) -> bytes:
    shared = {"id": "c", "created": 1, "model": "m"}
    if not json.loads(body).get("stream"):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "good day"}}
        return answer(
            "application/json", json.dumps({**shared, "object": "chat.completion", "choices": [choice]}).encode()
        )
    pieces = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in ("good ", "day")]
    told = [{**shared, "object": "chat.completion.chunk", "choices": [piece]} for piece in pieces]
    return events(*((None, one) for one in told), (None, "[DONE]"))


def anthropic_says(_head: bytes, body: bytes) -> bytes:
    message: dict[str, Any] = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    if not json.loads(body).get("stream"):
        whole = {**message, "content": [{"type": "text", "text": "good day"}]}
        return answer("application/json", json.dumps(whole).encode())
    deltas = [
        ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}})
        for t in ("good ", "day")
    ]
    begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return events(
        ("message_start", {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}),
        ("content_block_start", begun),
        *deltas,
        ("content_block_stop", {"type": "content_block_stop", "index": 0}),
        (
            "message_delta",
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        ),
        ("message_stop", {"type": "message_stop"}),
    )


def github_says(_head: bytes, _body: bytes) -> bytes:
    return answer("application/json", json.dumps({"login": "good day", "id": 1, "type": "User"}).encode())


SAYS: Final = {"openai": openai_says, "anthropic": anthropic_says, "github": github_says}


async def run(name: str, base_url: str, handle: str) -> tuple[int, str, str]:
    words = (str(PYTHON), str(CALLER), name, base_url, handle)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def requests_of(agent: Agent) -> list[str]:
    return [head.decode("latin-1").lower() for head, _ in agent.requests]


@pytest.mark.parametrize("name", CLIENTS)
async def test_an_ordinary_client_works_and_sends_the_provider_nothing_but_the_key(
    hops: Hops, provider: Provider, name: str
) -> None:
    if not PYTHON.exists():
        pytest.fail("the clients are not installed: make interop-sdk")
    field, paths = CLIENTS[name]
    provider.agent.script = SAYS[name]
    key = {"file": str(hops.world.folder / "model.key"), "preset": name, "owner": "ml", "until": "2999-01-01"}
    await start(hops, provider, paths=paths, methods=["GET", "POST"], inject=key)
    base_url = f"http://127.0.0.1:{hops.writer.outbound}/model"
    async with hops.serving({"sub": "alice"}) as held:
        code, out, err = await run(name, base_url, held.handle)
        assert code == 0, err
        told = json.loads(out)
        assert told["whole"] == "good day"
        assert "".join(told["pieces"]) in ("", "good day")
        for head in requests_of(provider.agent):
            value = SECRET if field == "x-api-key" else f"bearer {SECRET}"
            assert f"{field}: {value}\r\n" in head
            assert held.handle.lower() not in head
            assert "delegation-" not in head
            assert head.count(SECRET) == 1
    refused, _, err = await run(name, base_url, held.handle)  # its request has ended
    assert refused != 0
    assert "403" in err
    records = await hops.outbound_records(len(provider.agent.requests) + 1)
    assert {(one["subject"], one["decision"]) for one in records[:-1]} == {("alice", "allow")}
    assert records[-1]["reason"] == "no_request_context"
