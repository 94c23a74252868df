"""The agent's messages of MCP and A2A by both engines: nobody outside can tell which one served."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.fuzz.mutate import Mutator
from tests.native import needs_native
from tests.proxy.engines import OutboundWorld
from tests.proxy.messages import EVENTS, FOUND, TASK, a2a, answer, mcp, old_tool, say, to_agent, to_tools, tool
from tests.proxy.test_warm import Event, answers, nothing
from tests.proxy.test_warm_outbound import _EVENTS as MEANWHILE
from tests.proxy.test_warm_outbound import HARMLESS, both
from tests.proxy.warm import ANSWER

pytestmark = needs_native

SEARCH: Final = to_tools(tool()[0], *tool()[1])
ASK: Final = to_agent(say()[0], *say()[1])
WARM: Final = [
    SEARCH,
    to_tools(old_tool()[0], *old_tool()[1]),
    to_tools(old_tool()[0], *old_tool()[1], "Mcp-Session-Id: of-the-next-hop"),
    to_tools(tool("named")[0], *tool("named")[1]),
    ASK,
    to_agent(a2a("GetTask", {"id": "t1"})[0], "A2A-Version: 1.0"),
    to_agent(b"", "A2A-Version: 1.0", path="/v1/tasks/t1:cancel"),
    to_agent(b'{"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}', "A2A-Version: 1.0",
             path="/v1/message:send"),
]  # fmt: skip
WORDS: Final = [
    b'"tools/call"', b'"SendMessage"', b"Mcp-Name: search\r\n", b"Mcp-Session-Id: a\r\n", b"A2A-Version: 0.3\r\n", b"{",
    b'"name"', b"Content-Type: text/plain\r\n", b"tasks/get", b'"id": 1', b"MCP-Protocol-Version: 2025-06-18\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", WARM, ids=range(len(WARM)))
async def test_a_message_is_served_alike_and_natively(tmp_path: Path, data: bytes) -> None:
    _, records = await both(tmp_path, [(data, FOUND, nothing)] * 3, least_taken=3)
    assert {record["decision"] for record in records} == {"allow"}


@pytest.mark.parametrize(
    ("data", "op"),
    [
        (SEARCH, "tools/call:search"),
        (to_tools(tool("unlisted")[0], *tool("unlisted")[1]), "tools/call:other"),
        (to_tools(tool("named")[0], *tool("named")[1]), "tools/call:named"),
        (ASK, "SendMessage"),
    ],
)
async def test_a_record_names_the_operation_as_far_as_the_settings_do(tmp_path: Path, data: bytes, op: str) -> None:
    _, records = await both(tmp_path, [(data, FOUND, nothing)], least_taken=1)
    assert [record["op"] for record in records] == [op]


async def test_a_name_that_needs_escapes_is_left_to_python(tmp_path: Path) -> None:
    message, fields = mcp("tools/call", {"name": "su\u00e9che", "arguments": {}}, name="=?base64?c3XDqWNoZQ==?=")
    await both(tmp_path, [(to_tools(message, *fields), FOUND, nothing)])


@pytest.mark.parametrize(
    "data",
    [
        to_tools(tool()[0].replace(b"tools/call", b"tools/drop"), *tool()[1]),
        to_tools(mcp("prompts/get", {"name": "x"}, name="x")[0], *mcp("prompts/get", {"name": "x"}, name="x")[1]),
        to_tools(tool()[0], *tool("other")[1]),
        to_tools(tool()[0][:-1], *tool()[1]),
        to_tools(b"[" + tool()[0] + b"]", *tool()[1]),
        to_tools(tool()[0], *tool()[1], "Content-Encoding: gzip"),
        SEARCH.replace(b"Content-Type: application/json", b"Content-Type: text/plain"),
        to_agent(say()[0], "A2A-Version: 9.0"),
        to_agent(a2a("DeleteTask", {"id": "t1"})[0], "A2A-Version: 1.0"),
        to_agent(say(taskId="a", task_id="b")[0], "A2A-Version: 1.0"),
    ],
    ids=range(10),
)
async def test_a_message_that_is_refused_is_refused_alike_and_never_sent(tmp_path: Path, data: bytes) -> None:
    steps = [(SEARCH, FOUND, nothing), (data, FOUND, nothing), (SEARCH, FOUND, nothing)]
    outcomes, records = await both(tmp_path, steps, least_taken=2, most_taken=2)
    assert outcomes[1].sent == b""
    assert [record["decision"] for record in records] == ["allow", "deny", "allow"]


@pytest.mark.parametrize(
    "data",
    [
        SEARCH.replace(b"POST", b"GET").partition(b"Content-Length")[0] + b"\r\n",
        to_agent(a2a("GetExtendedAgentCard", {})[0], "A2A-Version: 1.0"),
        to_tools(tool()[0] + b" " * 66_000, *tool()[1]),
    ],
    ids=["a stream", "a card that is written again", "a long message"],
)
async def test_what_is_not_passed_on_as_it_is_is_left_to_python(tmp_path: Path, data: bytes) -> None:
    await both(tmp_path, [(data, FOUND, nothing)] * 2, most_taken=0)


@pytest.mark.parametrize("data", [SEARCH, ASK], ids=["mcp", "a2a"])
@pytest.mark.parametrize(
    "found",
    [
        FOUND,
        TASK,
        EVENTS,
        answer({}, "Mcp-Session-Id: s1"),
        answer({}, "Delegation-Reason: policy_denied"),
        answer({}, "Delegation-Reason: made_up"),
        answer({}, "Delegation-Reason: policy_denied", "Delegation-Reason: policy_denied"),
        answer({}, "Delegation-Reason: policy_denied", status="403 Forbidden"),
        answer({}, status="401 Unauthorized"),
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: {}\n",
    ],
    ids=range(11),
)
async def test_every_kind_of_answer_is_passed_on_alike(tmp_path: Path, data: bytes, found: bytes) -> None:
    await both(tmp_path, [(data, FOUND, nothing), (data, found, nothing), (data, FOUND, nothing)], least_taken=2)


async def test_a_refusal_of_the_next_hop_is_noted_whichever_engine_began(tmp_path: Path) -> None:
    refused = answer({}, "Delegation-Reason: policy_denied")
    _, records = await both(tmp_path, [(ASK, refused, nothing)] * 2, least_taken=2)
    assert {record["reason"] for record in records} == {"next_hop_refused"}


@pytest.mark.parametrize("data", [SEARCH, ASK], ids=["mcp", "a2a"])
@pytest.mark.parametrize("event", MEANWHILE, ids=lambda event: event.__name__)
async def test_what_happens_meanwhile_ends_alike(tmp_path: Path, event: Event, data: bytes) -> None:
    await both(tmp_path, [(data, FOUND, nothing), (data, FOUND, event)], least_taken=2)


@pytest.mark.parametrize("seed", range(3))
async def test_many_things_that_happen_end_alike(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    found = [FOUND, FOUND, TASK, EVENTS, ANSWER, *answers()]
    steps = [(random.choice(WARM), random.choice(found), random.choice([nothing, *HARMLESS])) for _ in range(100)]
    await both(tmp_path, steps, least_taken=20)


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_near_a_message_is_served_alike(tmp_path: Path, seed: int) -> None:
    near = islice(Mutator(WARM, WORDS, seed=seed), 500)
    await both(tmp_path, [(data, FOUND, nothing) for data in [*WARM, *near, *WARM]], least_taken=10)


@pytest.mark.parametrize("cut", [1, 40, 400, -1, -60])
@pytest.mark.parametrize("data", [SEARCH, ASK], ids=["mcp", "a2a"])
async def test_a_message_in_two_pieces_is_served_alike(tmp_path: Path, data: bytes, cut: int) -> None:
    counted = []
    for engine in ("python", "native"):
        world = OutboundWorld("python" if engine == "python" else "native", tmp_path)
        outcomes = [world.exchange((data[:cut], data[cut:]), FOUND) for _ in range(2)]
        counted.append((outcomes, await world.records(), world.counted))
        if engine == "native" and cut < 0:
            assert world.taken == 2
    assert counted[0] == counted[1]
