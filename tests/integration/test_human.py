"""A route that requires a fresh login of the user, over real connections."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration import mesh_files
from tests.integration.hops import Hops
from tests.integration.mesh import open_mesh
from tests.integration.test_websocket import reload
from tests.integration.world import PATIENCE_S, Answer, bearer, mint, ok, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2 * PATIENCE_S)]

HUMAN = {"max_age_s": 60, "acr": ["phrh", "phr"]}
CHALLENGE = (
    'Bearer error="insufficient_user_authentication", '
    'error_description="a more recent or stronger login of the user is required", max_age="60", acr_values="phrh phr"'
)


async def ask(hops: Hops, token: str) -> Answer:
    """Send a request that the agent answers at once."""
    hops.agent.script = lambda _head, _body: ok(b"done")
    return await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(token))


@pytest.mark.parametrize("login", [{"auth_time": -61, "acr": "phr"}, {"auth_time": -5, "acr": "pwd"}, {}])
async def test_a_login_that_is_not_fresh_is_refused_with_what_a_front_app_needs(
    hops: Hops, login: dict[str, object]
) -> None:
    await hops.start(route={"human": HUMAN})
    now = int(time.time())
    claims = {name: now + value if isinstance(value, int) else value for name, value in login.items()}
    assert (await ask(hops, mint({"auth_time": now - 5, "acr": "phr"}))).status == 200
    refused = await ask(hops, mint(claims))
    assert (refused.status, refused.reason) == (401, "step_up_required")
    assert refused.headers["www-authenticate"] == CHALLENGE
    assert len(hops.agent.requests) == 1
    await until(lambda: any(one["reason"] == "step_up_required" for one in hops.writer.records()))
    (record,) = (one for one in hops.writer.records() if one["reason"] == "step_up_required")
    assert (record["decision"], record["subject"], record["verified"]) == ("deny", "alice", True)


async def test_a_permit_is_remembered_only_as_long_as_the_login_is_fresh(hops: Hops) -> None:
    await hops.start(route={"human": {"max_age_s": 60}, "linger_s": 600})
    token = mint({"auth_time": int(time.time()) - 57})
    async with hops.serving(token=token) as held:
        during = await hops.call(held.shown)
    after = await hops.call(held.shown)
    assert (during.status, after.status) == (200, 200)

    last = None
    deadline = time.monotonic() + PATIENCE_S
    while last != "step_up_required" and time.monotonic() < deadline:
        last = (await ask(hops, token)).reason
    assert last == "step_up_required"
    assert (await hops.call(held.shown)).reason == "no_request_context"  # its authority has ended too


async def test_a_reload_that_asks_for_a_fresh_login_ends_the_handle_of_an_old_one(hops: Hops) -> None:
    await hops.start()
    now = int(time.time())
    async with hops.serving({"auth_time": now - 61}) as old, hops.serving({"auth_time": now}) as fresh:
        before = [(await hops.call(held.shown)).status for held in (old, fresh)]
        await reload(hops.writer, lambda settings: settings["inbound"]["routes"][0].update(human={"max_age_s": 60}))
        after = [await hops.call(held.shown) for held in (old, fresh)]
    assert before == [200, 200]
    assert after[0].reason in {"step_up_required", "no_request_context"}
    assert after[1].status == 200


async def test_the_challenge_of_a_next_hop_reaches_the_agent(hops: Hops) -> None:
    hops.crm.script = lambda _head, _body: (
        f"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {CHALLENGE}\r\ndelegation-reason: step_up_required\r\n"
        "delegation-subject: mallory\r\ncontent-length: 0\r\n\r\n"
    ).encode()
    await hops.start()
    async with hops.serving() as held:
        answer = await hops.call(held.shown)
    assert (answer.status, answer.reason, answer.headers["www-authenticate"]) == (401, "step_up_required", CHALLENGE)
    assert "delegation-subject" not in answer.headers


async def test_a_tool_three_hops_away_has_the_front_app_log_its_user_in_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strict_crm(ports: dict[str, int]) -> dict[str, Any]:
        settings: dict[str, Any] = usual_crm(ports)
        settings["inbound"]["routes"][0]["human"] = {"max_age_s": 600}
        return settings

    usual_crm = mesh_files.crm
    monkeypatch.setattr(mesh_files, "crm", strict_crm)
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder)) as mesh:
            old = await mesh.ask(mesh.log_in(age_s=700))
            asked_of_the_tool = len(mesh.agents["crm"].requests)
            fresh = await mesh.ask(mesh.log_in())
            await until(lambda: len(mesh.records("crm")) == 2)
            reasons = [record["reason"] for record in mesh.records("crm")]
    assert (old.status, old.headers["x-reason"], asked_of_the_tool) == (401, "step_up_required", 0)
    assert 'error="insufficient_user_authentication"' in old.headers["www-authenticate"]
    assert old.headers["www-authenticate"].endswith('max_age="600"')
    assert (fresh.status, fresh.body) == (200, b"alice")
    assert reasons == ["step_up_required", "ok"]
