"""The key that an agent expects: on permitted requests, in the place of the caller's field, and on no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Unavailable
from sidecar.features.observing import shown_credentials
from sidecar.features.outside.agent_key import AgentKey, AgentKeySettings
from sidecar.features.outside.static_keys import StaticKeys
from tests.core.world import INBOUND_CLAIMS, signed
from tests.features.outside.test_static_keys import until
from tests.proxy.peer_calls import PeerCalls, bearer

KEY, NEXT_KEY, CALLERS_KEY = "sk-of-the-agent", "sk-of-tomorrow", "sk-of-the-caller"


def calls(folder: Path, field: str, scheme: str = "", keys: StaticKeys | None = None) -> tuple[PeerCalls, Path]:
    """Return a peer's calls to an agent that expects a key, and the file of the key."""
    file = folder / "key"
    file.touch(mode=0o600)
    file.write_text(KEY)
    return PeerCalls(folder, edits=AgentKey(AgentKeySettings(str(file), field, scheme), keys).edits), file


def token(**changes: Any) -> tuple[str, str]:
    return bearer(signed({**INBOUND_CLAIMS, **changes}).raw)


def fields(arrived: bytes, *names: str) -> list[str]:
    """Return the values of fields in the request that reached the agent, with repeated ones."""
    lines = arrived.decode("latin-1").split("\r\n")[1:]
    found = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    return [value for wanted in names for name, value in found if name == wanted]


async def test_a_permitted_request_has_the_agent_s_key_in_authorization_and_the_handle_in_its_own_field(
    tmp_path: Path,
) -> None:
    asked, _ = calls(tmp_path, "authorization", "Bearer ")
    assert asked.call(token()) == (200, None)
    key, handle, subject = fields(asked.arrived, "authorization", "delegation-handle", "delegation-subject")
    assert (key, len(handle), subject) == (f"Bearer {KEY}", 43, "alice")


async def test_a_key_in_another_field_replaces_the_caller_s_and_leaves_the_handle_in_authorization(
    tmp_path: Path,
) -> None:
    asked, _ = calls(tmp_path, "x-api-key")
    assert asked.call(token(), ("X-Api-Key", CALLERS_KEY), ("X_Api_Key", CALLERS_KEY)) == (200, None)
    key, authorization, handle = fields(asked.arrived, "x-api-key", "authorization", "delegation-handle")
    assert (key, authorization) == (KEY, f"Bearer {handle}")
    assert CALLERS_KEY.encode() not in asked.arrived


@pytest.mark.parametrize("shown", [[], [bearer(CALLERS_KEY)], [token(scope="crm.read")]], ids=["none", "key", "token"])
@pytest.mark.parametrize("field", ["authorization", "x-api-key"])
async def test_a_request_that_passes_because_its_route_observes_never_has_it(
    tmp_path: Path, field: str, shown: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_credentials, "MIN_BYTES", 1000)  # no call waits for a fingerprint
    asked, _ = calls(tmp_path, field)
    assert asked.call(*shown, ("x-api-key", CALLERS_KEY)) == (200, None)
    assert KEY.encode() not in asked.arrived
    assert fields(asked.arrived, "authorization", "x-api-key") == [*(value for _, value in shown), CALLERS_KEY]
    (record,) = await asked.records()
    assert record["decision"] == "observed_deny"


async def test_the_file_is_followed_and_without_a_key_nothing_reaches_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.features.outside.static_keys.LOOK_S", 0.001)
    keys = StaticKeys()
    asked, file = calls(tmp_path, "authorization", keys=keys)

    def current() -> bytes | None:
        try:
            return keys.of(str(file)).value
        except Unavailable:
            return None

    assert asked.call(token()) == (200, None)
    file.write_text(NEXT_KEY)
    await until(lambda: current() == NEXT_KEY.encode())
    assert asked.call(token()) == (200, None)
    assert fields(asked.arrived, "authorization") == [KEY, NEXT_KEY]
    file.unlink()
    await until(lambda: current() is None)
    arrived = asked.arrived
    assert asked.call(token()) == (503, "credential_unavailable")
    assert asked.arrived == arrived
    assert len(asked.warm.handles) == 0
    *_, refused = await asked.records()
    assert (refused["decision"], refused["reason"]) == (
        "allow",
        "credential_unavailable",
    )  # as of an agent that does not answer
    assert KEY not in str(refused)
