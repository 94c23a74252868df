"""The agent's calls at the token service: their number, and that nothing leaves when it fails, lies or is silent."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.lies import CONTENT_LIES
from tests.fakes.lying_sts import SECRET, honest
from tests.integration.hops import Hops
from tests.integration.world import PLANNER, mint, ok

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

# Their times are relative to the fakes' own clock; the exchange's own tests cover them.
RELATIVE = {"not yet valid", "issued in the future"}
SUBJECT = {
    "jti": "token-1",
    "act": {"sub": PLANNER},
    "sub_id": {"format": "iss_sub", "iss": "https://idp.example", "sub": "4711"},
}


async def test_whatever_the_token_service_lies_about_nothing_leaves(hops: Hops) -> None:
    await hops.start(route={"max_calls": 1000})
    expected = {name: lie[1] for name, lie in CONTENT_LIES.items() if name not in RELATIVE}
    found: dict[str, tuple[int, str | None]] = {}
    async with hops.serving(SUBJECT) as held:
        for name in expected:
            hops.sts.behaviour = CONTENT_LIES[name][0]
            answer = await hops.call(held.shown)
            found[name] = answer.status, answer.reason
            assert SECRET.encode() not in answer.body
        assert hops.crm.requests == []
        hops.sts.behaviour = honest
        assert (await hops.call(held.shown)).status == 200
    assert found == {name: (reason.answer.status, str(reason)) for name, reason in expected.items()}
    records = await hops.outbound_records(len(expected) + 1)
    assert {r["decision"] for r in records[:-1]} == {"deny"}
    assert len(records) == len(expected) + 1


async def test_a_silent_token_service_is_given_up_and_asked_again_by_the_next_call(hops: Hops) -> None:
    await hops.start(exchange={"timeout_s": 0.2})
    async with hops.serving() as held:
        hops.sts.hold()
        answer = await hops.call(held.shown)
        assert (answer.status, answer.reason) == (504, "sts_timeout")
        assert hops.crm.requests == []
        hops.sts.release()
        assert (await hops.call(held.shown)).status == 200


async def test_a_token_service_that_is_down_is_told_and_kept_tokens_still_serve(hops: Hops) -> None:
    await hops.start()
    async with hops.serving() as known, hops.serving() as unknown:
        assert (await hops.call(known.shown)).status == 200
        await hops.stop_sts()
        assert (await hops.call(known.shown)).status == 200
        refused = await hops.call(unknown.shown)
        assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "sts_unavailable", "1")
    assert len(hops.crm.requests) == 2


async def test_one_token_is_asked_for_once(hops: Hops) -> None:
    await hops.start()
    token = mint()
    for _ in range(2):
        async with hops.serving(token=token) as held:
            for _ in range(2):
                assert (await hops.call(held.shown)).status == 200
    assert len(hops.sts.forms) == 1
    async with hops.serving() as other:
        assert (await hops.call(other.shown)).status == 200
    assert [form["subject_token"] == token for form in hops.sts.forms] == [True, False]


async def test_a_hundred_calls_at_once_are_one_exchange(hops: Hops) -> None:
    await hops.start(route={"max_calls": 100})
    async with hops.serving() as held:
        hops.sts.hold()
        calls = [asyncio.ensure_future(hops.call(held.shown)) for _ in range(100)]
        await hops.sts.wait_for_requests(1)
        hops.sts.release()
        answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}
    assert len(hops.sts.forms) == 1
    assert len({hops.crm.headers(number)["authorization"] for number in range(100)}) == 1
    assert len({hops.crm.headers(number)["delegation-call"] for number in range(100)}) == 100


@pytest.mark.parametrize("body", ["", "content-length: 4\r\n\r\nbody", "content-length: 4\r\n\r\nbo"])
async def test_a_caller_who_leaves_does_not_take_the_exchange_with_it(hops: Hops, body: str) -> None:
    await hops.start()
    async with hops.serving() as held:
        hops.sts.hold()
        head = f"POST /x HTTP/1.1\r\nhost: crm.mesh\r\nauthorization: Bearer {held.handle}\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", hops.writer.outbound)
        writer.write((head + (body or "\r\n")).encode())
        await hops.sts.wait_for_requests(1)
        patient = asyncio.ensure_future(hops.call(held.shown, "/x", host="crm.mesh"))
        writer.transport.abort()
        (gone,) = await hops.outbound_records(1)
        assert (gone["decision"], gone["reason"], gone["status"]) == ("deny", "peer_gone", None)
        hops.sts.release()
        assert (await patient).status == 200
    assert len(hops.sts.forms) == 1


async def test_a_401_of_the_next_hop_is_passed_on_and_costs_one_new_token_at_most(hops: Hops) -> None:
    await hops.start()
    hops.crm.script = lambda _head, _body: ok(b"who?").replace(b"200 OK", b"401 Unauthorized")
    async with hops.serving() as held:
        answers = [await hops.call(held.shown) for _ in range(4)]
        assert [(answer.status, answer.body) for answer in answers] == [(401, b"who?")] * 4
        shown = [hops.crm.headers(number)["authorization"] for number in range(4)]
        assert shown[0] != shown[1] == shown[2] == shown[3]
        assert len(hops.sts.forms) == 2


async def test_another_status_of_the_next_hop_costs_no_token(hops: Hops) -> None:
    await hops.start()
    hops.crm.script = lambda _head, _body: ok(b"no").replace(b"200 OK", b"403 Forbidden")
    async with hops.serving() as held:
        answers = [await hops.call(held.shown) for _ in range(2)]
    assert [answer.status for answer in answers] == [403, 403]
    assert len(hops.sts.forms) == 1
