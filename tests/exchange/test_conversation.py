from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.rfc8693 import TokenResponse
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange import conversation
from sidecar.exchange.adapters.adapter import ClientAuth, Step, Steps
from sidecar.exchange.client_auth import ClientAuthenticator, ClientAuthSettings
from sidecar.exchange.conversation import MAX_STEPS, SHARED_S, YOUNG_S, Conversation, Reached
from sidecar.exchange.events import credential_of
from sidecar.exchange.failover import AllOpen, Unsent
from sidecar.identity.endpoint import EndpointAnswer
from tests.exchange.world import Clock, authority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import ISSUER, PLANNER, WRITER, encode

OWN = Step(form=(("grant_type", "client_credentials"),), shared=True)


class Service:
    """Answers each form by ``says``."""

    def __init__(self, says: Callable[[str], tuple[int, dict[str, object]]] | None = None) -> None:
        self.says = says or (lambda _form: (200, {"access_token": "t", "token_type": "Bearer", "expires_in": 600}))
        self.forms: list[str] = []
        self.sent_once: list[bool] = []
        self.subjects: list[Hashable] = []
        self.errors: list[SidecarError] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        self.forms.append(form.decode())
        self.sent_once.append(once)
        self.subjects.append(subject)
        self.asked.set()
        if self.errors:
            raise self.errors.pop(0)
        await self.may_answer.wait()
        status, members = self.says(form.decode())
        return EndpointAnswer(status, "application/json", None, encode(members))

    async def close(self) -> None:
        pass


def talking(
    *services: Service, retries: int = 1, clock: Clock | None = None, method: ClientAuth = ClientAuth.TLS_SAN_URI
) -> Conversation:
    settings = ClientAuthSettings(method=method, audience=ISSUER)
    shower = ClientAuthenticator(settings, OwnIdentity(authority(), WRITER), Clock(0.0))
    endpoints = {name: Reached(service, shower) for name, service in zip(("token", "idp"), services, strict=False)}
    return Conversation(endpoints, retries=retries, monotonic=clock or Clock(0.0))


def asking(*steps: Step) -> Steps:
    """Ask these steps and return the last token."""
    token: TokenResponse | None = None
    for step in steps:
        token = (yield step).token(scope=None)
    assert token is not None
    return token


def bare(name: str) -> Step:
    return Step(form=(("x", name),))


async def reason_of(talk: Conversation, *steps: Step) -> Reason:
    with pytest.raises(SidecarError) as caught:
        await talk.run(asking(*steps), WRITER)
    return caught.value.reason


async def test_steps_are_asked_in_turn_each_with_our_authentication() -> None:
    service, idp = Service(), Service()
    credentials: set[str] = set()
    told = await talking(service, idp).run(
        asking(Step(form=(("x", "1"),), endpoint="idp"), Step(form=(("x", "2"),), authenticate=False)),
        WRITER,
        credentials,
    )
    assert (told.access_token, credentials) == ("t", set())
    assert idp.forms == [f"x=1&client_id={str(WRITER).replace(':', '%3A').replace('/', '%2F')}"]
    assert service.forms == ["x=2"]


async def test_an_own_token_is_asked_for_once_and_shared() -> None:
    service, clock = Service(), Clock(0.0)
    talk = talking(service, clock=clock)
    for number in range(3):
        await talk.run(asking(OWN, bare(str(number))), WRITER)
    assert sum("client_credentials" in form for form in service.forms) == 1
    clock.now = 299.0
    await talk.run(asking(OWN, bare("3")), WRITER)
    assert sum("client_credentials" in form for form in service.forms) == 1
    clock.now = SHARED_S
    await talk.run(asking(OWN, bare("4")), WRITER)
    assert sum("client_credentials" in form for form in service.forms) == 2


async def test_calls_that_need_the_same_own_token_wait_for_one() -> None:
    service = Service()
    service.may_answer.clear()
    talk = talking(service)
    calls = [asyncio.create_task(talk.run(asking(OWN), WRITER)) for _ in range(20)]
    await service.asked.wait()
    service.may_answer.set()
    await asyncio.gather(*calls)
    assert len(service.forms) == 1


async def test_whom_a_call_is_for_is_told_with_each_step_and_each_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "FIRST_RETRY_S", 0.001)
    service = Service()
    service.errors = [Unavailable(Reason.STS_UNAVAILABLE)]
    await talking(service).run(asking(OWN, bare("1")), WRITER, subject="alice")
    await talking(service).run(asking(OWN), WRITER)
    assert service.subjects == ["alice", "alice", "alice", None]


async def test_steps_with_a_fresh_value_each_time_leave_nothing_behind() -> None:
    talk = talking(Service(lambda _form: (200, {"access_token": "t", "token_type": "Bearer"})))
    for number in range(20):
        await talk.run(asking(Step(form=(("assertion", f"fresh-{number}"),), shared=True)), WRITER)
    gc.collect()
    left = {one.form[0][1] for one in gc.get_objects() if isinstance(one, Step) and one.form[0][0] == "assertion"}
    assert left <= {"fresh-19"}, "the last answer is kept until the next one"


async def test_a_shared_answer_is_forgotten_with_the_credential_that_obtained_it() -> None:
    service = Service()
    talk = talking(service)
    await talk.run(asking(OWN), WRITER)
    talk.forget()
    await talk.run(asking(OWN), WRITER)
    assert len(service.forms) == 2
    await talk.run(asking(OWN), WRITER)
    assert len(service.forms) == 2


@pytest.mark.parametrize("forgets", [True, False])
async def test_an_answer_that_was_under_way_then_is_kept_for_nobody(forgets: bool) -> None:
    service = Service()
    service.may_answer.clear()
    talk = talking(service)
    call = asyncio.create_task(talk.run(asking(OWN), WRITER))
    await service.asked.wait()
    if forgets:
        talk.forget()
    service.may_answer.set()
    await call
    await talk.run(asking(OWN), WRITER)
    assert len(service.forms) == (2 if forgets else 1)


async def test_nothing_is_shared_with_another_identity_or_another_step() -> None:
    service = Service()
    talk = talking(service)
    await talk.run(asking(OWN), WRITER)
    await talk.run(asking(OWN), SpiffeId(PLANNER))
    await talk.run(asking(Step(form=(*OWN.form, ("scope", "x")), shared=True)), WRITER)
    assert len(service.forms) == 3


async def test_an_own_token_without_a_lifetime_is_asked_for_each_time() -> None:
    service = Service(lambda _form: (200, {"access_token": "t", "token_type": "Bearer"}))
    talk = talking(service)
    await talk.run(asking(OWN), WRITER)
    await talk.run(asking(OWN), WRITER)
    assert len(service.forms) == 2


async def test_an_own_token_that_was_refused_is_kept_for_nobody() -> None:
    service = Service(lambda _form: (400, {"error": "invalid_client"}))
    talk = talking(service)
    assert await reason_of(talk, OWN) is Reason.EXCHANGE_DENIED
    assert await reason_of(talk, OWN) is Reason.EXCHANGE_DENIED
    assert len(service.forms) == 2


async def test_a_refusal_after_a_shared_step_drops_it_unless_it_is_young() -> None:
    def says(form: str) -> tuple[int, dict[str, object]]:
        if "refused" in form:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "t", "token_type": "Bearer", "expires_in": 600}

    service, clock = Service(says), Clock(0.0)
    talk = talking(service, clock=clock)
    asked = [OWN, bare("refused")]
    assert await reason_of(talk, *asked) is Reason.EXCHANGE_DENIED
    assert await reason_of(talk, *asked) is Reason.EXCHANGE_DENIED
    assert sum("client_credentials" in form for form in service.forms) == 1
    clock.now = YOUNG_S
    assert await reason_of(talk, *asked) is Reason.EXCHANGE_DENIED
    assert await reason_of(talk, *asked) is Reason.EXCHANGE_DENIED
    assert sum("client_credentials" in form for form in service.forms) == 2


@pytest.mark.parametrize("status", [300, 302, 307, 399])
async def test_a_redirect_ends_the_exchange_before_the_adapter_sees_it(status: int) -> None:
    service = Service(lambda _form: (status, {"access_token": "t", "token_type": "Bearer"}))
    assert await reason_of(talking(service), bare("1")) is Reason.STS_REDIRECT
    assert len(service.forms) == 1


async def test_a_form_that_must_not_be_sent_twice_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "FIRST_RETRY_S", 0.001)
    service = Service()
    service.errors = [Unavailable(Reason.STS_UNAVAILABLE)]
    once = Step(form=(("code", "c"),), once=True)
    assert await reason_of(talking(service, retries=3), once) is Reason.STS_UNAVAILABLE
    assert service.sent_once == [True]
    service.errors = [Unavailable(Reason.STS_UNAVAILABLE)]
    await talking(service, retries=3).run(asking(bare("again")), WRITER)
    assert service.sent_once == [True, False, False]


ONCE = Step(form=(("code", "c"),), once=True)
AWAY, GONE = Unsent(Reason.STS_UNAVAILABLE), Unavailable(Reason.STS_UNAVAILABLE)
OUTAGES: dict[str, tuple[list[Step], list[SidecarError], bool]] = {
    "no connection": ([ONCE], [AWAY], True),
    "an open circuit": ([ONCE], [AllOpen(Reason.STS_UNAVAILABLE)], True),
    "no connection for a shared step before it": ([OWN, ONCE], [AWAY, AWAY], True),
    "no answer": ([ONCE], [GONE], False),
    "no connection for a step after it": ([ONCE, ONCE], [AWAY], False),
    "no connection for a form that may be sent twice": ([bare("c")], [AWAY, AWAY], False),
}


@pytest.mark.parametrize(("steps", "errors", "unsent"), OUTAGES.values(), ids=OUTAGES.keys())
async def test_an_outage_is_called_unsent_only_if_the_form_for_once_cannot_have_left(
    monkeypatch: pytest.MonkeyPatch, steps: list[Step], errors: list[SidecarError], unsent: bool
) -> None:
    monkeypatch.setattr(conversation, "FIRST_RETRY_S", 0.001)
    service = Service()

    def fail_at_last(_form: str) -> tuple[int, dict[str, object]]:
        service.errors = list(errors)
        return 200, {"access_token": "t", "token_type": "Bearer", "expires_in": 600}

    service.says = fail_at_last
    service.errors = [] if steps == [ONCE, ONCE] else list(errors)
    with pytest.raises(Unavailable) as caught:
        await talking(service).run(asking(*steps), WRITER)
    assert (caught.value.reason, isinstance(caught.value, Unsent)) == (Reason.STS_UNAVAILABLE, unsent)


async def test_an_authentication_that_is_not_there_yet_leaves_a_form_unsent() -> None:
    service = Service()
    source = OwnIdentity(authority(), WRITER)
    settings = ClientAuthSettings(method=ClientAuth.TLS_SAN_URI, audience=ISSUER)
    shower = ClientAuthenticator(settings, source, Clock(0.0))
    talk = Conversation({"token": Reached(service, shower)}, retries=0)
    source.become(None)
    with pytest.raises(Unsent) as caught:
        await talk.run(asking(ONCE), WRITER)
    assert (caught.value.reason, service.forms) == (Reason.NOT_READY, [])
    source.become(WRITER)
    await talk.run(asking(ONCE), WRITER)


async def test_an_open_circuit_is_not_tried_again_within_a_call() -> None:
    service = Service()
    service.errors = [AllOpen(Reason.STS_UNAVAILABLE)]
    assert await reason_of(talking(service, retries=3), bare("1")) is Reason.STS_UNAVAILABLE
    assert len(service.forms) == 1


async def test_an_adapter_that_asks_for_ever_comes_to_an_end() -> None:
    service = Service()
    assert await reason_of(talking(service), *[bare(str(n)) for n in range(MAX_STEPS + 1)]) is Reason.STS_BAD_RESPONSE
    assert len(service.forms) == MAX_STEPS
    await talking(Service()).run(asking(*[bare(str(n)) for n in range(MAX_STEPS)]), WRITER)


async def test_every_static_credential_that_was_shown_is_told_whatever_came_of_it(tmp_path: Path) -> None:
    def shower(name: str) -> ClientAuthenticator:
        (tmp_path / name).write_text(f"a long random secret of {name}")
        (tmp_path / name).chmod(0o600)
        settings = ClientAuthSettings(
            method=ClientAuth.SECRET_BASIC, audience=ISSUER, credential_file=str(tmp_path / name), allow_static=True
        )
        return ClientAuthenticator(settings, OwnIdentity(authority(), WRITER), Clock(0.0))

    refusing = Service(lambda _form: (400, {"error": "invalid_grant"}))
    talk = Conversation({"idp": Reached(Service(), shower("a")), "token": Reached(refusing, shower("b"))}, retries=0)
    credentials: set[str] = set()
    with pytest.raises(SidecarError):
        await talk.run(asking(Step(form=(("x", "1"),), endpoint="idp"), bare("2")), WRITER, credentials)
    assert len(credentials) == 2
    assert credential_of(credentials) == f"client:{','.join(sorted(one[7:] for one in credentials))}"
    assert credential_of(set()) is None
