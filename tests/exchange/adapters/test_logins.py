"""The adapters that need a user: exactly the messages of their drafts, and answers that are none of these refused."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.login import LoginPlan
from delegation_core.rfc8693 import TokenResponse
from sidecar.exchange.adapters import agent_grant, obo
from sidecar.exchange.adapters.adapter import Adapter, Answer, Capabilities, ClientAuth, Step
from sidecar.exchange.adapters.login import Started, StillPending, UserFlow, WantedLogin
from tests.exchange.world import route
from tests.fakes.tokens import CRM, WRITER, encode

GOLDEN: Final = Path(__file__).parent / "golden"
ADAPTERS: Final = {one.name: one for one in (obo.ADAPTER, agent_grant.ADAPTER)}
_R = TypeVar("_R")


def flow_of(adapter: Adapter) -> UserFlow:
    assert adapter.login is not None
    return adapter.login


def wanted(adapter: Adapter, **changes: Any) -> WantedLogin:
    lawful = WantedLogin(
        plan=LoginPlan(route=replace(route(), token="login"), actor=WRITER, life_s=300),
        client_id=str(WRITER),
        options=adapter.complete({"target": "none"}),
        reason="to plan Monday",
        state="st4te",
        verifier="dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",  # of RFC 7636 appendix B
        authorization_endpoint="https://login.example/authorize?tenant=a",
        redirect_uri="https://app.example/back",
        jwt_svid="actor.token",
    )
    return replace(lawful, **changes)


def taken(steps: Generator[Step, Answer, _R], *answers: Answer) -> tuple[_R, list[Step]]:
    """Take the steps to their end with these answers."""
    made: list[Step] = []
    try:
        step = next(steps)
        for answer in answers:
            made.append(step)
            step = steps.send(answer)
    except StopIteration as end:
        return end.value, made
    raise AssertionError("the adapter asks on")


def written(step: Step) -> dict[str, object]:
    return {"endpoint": step.endpoint, "once": step.once, "form": urlencode(step.form)}


def answer_of(golden: dict[str, Any]) -> Answer:
    return Answer(golden["status"], golden["content_type"], golden["body"].encode())


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_the_adapter_makes_exactly_the_messages_of_its_draft(adapter: Adapter) -> None:
    golden = json.loads((GOLDEN / f"{adapter.name}.json").read_text())
    flow, asked, answers = flow_of(adapter), wanted(adapter), [answer_of(one["answer"]) for one in golden["steps"]]
    first = [] if flow.browser else answers[:1]
    started, beginning = taken(flow.begin(asked), *first)
    assert started.url == golden["url"]
    token, completion = taken(flow.complete(asked, started, "c0de" if flow.browser else None), *answers[len(first) :])
    assert isinstance(token, TokenResponse)
    assert token.access_token == "a.b.c"
    made = [written(step) for step in (*beginning, *completion)]
    assert made == [{name: value for name, value in one.items() if name != "answer"} for one in golden["steps"]]
    assert all(step.authenticate and not step.shared for step in (*beginning, *completion))


def test_the_target_is_named_in_every_request_unless_an_option_says_otherwise() -> None:
    for adapter in ADAPTERS.values():
        flow, asked = flow_of(adapter), wanted(adapter, options=adapter.complete({}))
        begun = Answer(200, "application/json", encode({"request_code": "r", "poll_interval": 5, "expires_in": 600}))
        started, made = taken(flow.begin(asked), *([] if flow.browser else [begun]))
        parameters = dict(parse_qsl(urlsplit(started.url).query)) if started.url else dict(made[0].form)
        assert parameters["resource"] == CRM
    step = next(flow_of(obo.ADAPTER).complete(wanted(obo.ADAPTER, options={"target": "resource"}), Started(), "c"))
    assert ("resource", CRM) in step.form


def test_no_secret_is_in_what_a_login_looks_like() -> None:
    shown = repr(wanted(obo.ADAPTER)) + repr(Started(url="https://login.example/?state=st4te", code="c0de"))
    for secret in ("st4te", "dBjftJeZ4CVP", "actor.token", "c0de"):
        assert secret not in shown


def begun_with(code: str) -> Started:
    answer = Answer(200, "application/json", encode({"request_code": code}))
    started, _ = taken(flow_of(agent_grant.ADAPTER).begin(wanted(agent_grant.ADAPTER)), answer)
    return started


def test_a_request_code_has_a_longest_form() -> None:
    assert begun_with("r" * 2048).code == "r" * 2048
    with pytest.raises(SidecarError) as caught:
        begun_with("r" * 2049)
    assert (caught.value.reason, caught.value.detail) == (
        Reason.STS_TOO_LARGE,
        "request_code is longer than 2048 characters",
    )


BEGINNINGS: dict[str, tuple[int, dict[str, object], Reason]] = {
    "no code": (200, {"poll_interval": 5}, Reason.STS_BAD_RESPONSE),
    "a code of another kind": (200, {"request_code": 7}, Reason.STS_BAD_RESPONSE),
    "a code of several lines": (200, {"request_code": "a\nb"}, Reason.STS_BAD_RESPONSE),
    "an interval of none": (200, {"request_code": "r", "poll_interval": 0}, Reason.STS_BAD_RESPONSE),
    "an interval that is true": (200, {"request_code": "r", "poll_interval": True}, Reason.STS_BAD_RESPONSE),
    "a life that is text": (200, {"request_code": "r", "expires_in": "600"}, Reason.STS_BAD_RESPONSE),
    "an error beside it": (200, {"request_code": "r", "error": "x"}, Reason.STS_BAD_RESPONSE),
    "a refusal": (400, {"error": "invalid_scope"}, Reason.EXCHANGE_DENIED),
    "no client of its": (401, {"error": "invalid_client"}, Reason.STS_ERROR),
    "created": (201, {"request_code": "r"}, Reason.STS_BAD_RESPONSE),
    "overloaded": (503, {}, Reason.STS_UNAVAILABLE),
}


@pytest.mark.parametrize(("status", "members", "reason"), BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_an_answer_that_begins_no_request_is_refused(status: int, members: dict[str, object], reason: Reason) -> None:
    flow = flow_of(agent_grant.ADAPTER)
    with pytest.raises(SidecarError) as caught:
        taken(flow.begin(wanted(agent_grant.ADAPTER)), Answer(status, "application/json", encode(members)))
    assert caught.value.reason is reason


@pytest.mark.parametrize("body", [b"\xff", b"[]", b'{"request_code":"r","request_code":"s"}', b"{" * 40, b"x" * 70_000])
def test_a_beginning_that_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(SidecarError) as caught:
        taken(flow_of(agent_grant.ADAPTER).begin(wanted(agent_grant.ADAPTER)), Answer(200, "application/json", body))
    assert caught.value.reason in (Reason.STS_BAD_RESPONSE, Reason.STS_TOO_LARGE)


def poll(status: int, members: dict[str, object]) -> TokenResponse | StillPending:
    answer = Answer(status, "application/json", encode(members))
    return taken(flow_of(agent_grant.ADAPTER).complete(wanted(agent_grant.ADAPTER), Started(code="r"), None), answer)[0]


def test_a_poll_tells_that_the_user_has_not_answered() -> None:
    assert poll(400, {"error": "authorization_pending"}) == StillPending()
    assert poll(400, {"error": "slow_down"}) == StillPending(5)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, "access_denied", Reason.LOGIN_DENIED),
        (400, "expired_token", Reason.LOGIN_EXPIRED),
        (400, "invalid_grant", Reason.EXCHANGE_DENIED),
        (400, "s3cret", Reason.EXCHANGE_DENIED),
        (401, "authorization_pending", Reason.STS_ERROR),
        (200, "authorization_pending", Reason.STS_BAD_RESPONSE),
        (503, "slow_down", Reason.STS_UNAVAILABLE),
    ],
)
def test_a_poll_that_finds_anything_else_has_its_reason(status: int, error: str, reason: Reason) -> None:
    with pytest.raises(SidecarError) as caught:
        poll(status, {"error": error})
    assert caught.value.reason is reason
    assert "s3cret" not in caught.value.detail


@pytest.mark.parametrize(
    ("needs_user", "parts"), [(True, {}), (False, {"login": obo.ADAPTER.login}), (True, {"exchange": lambda _: None})]
)
def test_an_adapter_asks_a_user_or_exchanges(needs_user: bool, parts: dict[str, Any]) -> None:
    able = Capabilities(emits_act=True, nests_act=False, narrows=True, keeps_subject=True, needs_user=needs_user)
    with pytest.raises(ValueError, match="needs login, any other needs exchange"):
        Adapter(name="x-1", capabilities=able, client_auth=(ClientAuth.JWT_SVID,), **parts)
