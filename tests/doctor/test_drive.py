from __future__ import annotations

import pytest

from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.drive import drive, plan_requests
from sidecar.doctor.messages import Answer, Place, Request, Script, Wait
from sidecar.doctor.names import Probe
from sidecar.doctor.probes import examine
from tests.doctor.world import NOW, World
from tests.fakes.foreign_sts import Knobs

ONE = Request(name="one", place=Place.TOKEN, client=TestClient(client_id="a", method=Method.NONE), form=())


async def test_a_script_is_resumed_with_answers_and_pauses() -> None:
    slept: list[float] = []

    async def call(_request: Request) -> Answer:
        return Answer(status=200)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def script() -> Script[int]:
        first = yield ONE
        yield Wait(3.0)
        second = yield ONE
        return first.status + second.status

    assert await drive(script(), call, sleep) == 400
    assert slept == [3.0]


async def test_a_script_that_does_not_end_is_a_bug() -> None:
    async def call(_request: Request) -> Answer:
        return Answer(status=200)

    async def sleep(_seconds: float) -> None:
        return

    def endless() -> Script[int]:
        while True:
            yield ONE

    with pytest.raises(RuntimeError, match="does not end"):
        await drive(endless(), call, sleep)


def test_the_plan_has_every_request_of_a_server_that_accepts_everything() -> None:
    world = World(Knobs(act="client", delegated_actor=True))
    plan = {one.name for one in plan_requests(examine(world.case), NOW)}
    assert {name.value for name in Probe} - plan == {
        # these need a foreign JWT, a may_act, a resource
        "foreign JWT as actor", "subject with may_act, the named actor", "subject with may_act, another actor",
        "subject with may_act, no actor", "a known resource",
        # and these are readings, shown by the name of their token
        "introspection of the issued token",
        "introspection of the token of hop 2, before the revocation",
        "introspection of the token of hop 2, after the revocation",
    }  # fmt: skip


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(actor="ignore"), Knobs(actor="refuse"), Knobs(opaque="jwe")])
def test_every_request_that_is_sent_was_in_the_plan_or_is_a_reading(knobs: Knobs) -> None:
    world = World(knobs)
    plan = {one.name for one in plan_requests(examine(world.case), NOW)}
    world.examine()
    sent = {request.name for request, _ in world.log if request.place is not Place.INTROSPECTION}
    assert sent <= plan
