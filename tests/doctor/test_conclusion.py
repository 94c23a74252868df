from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN
from sidecar.doctor.conclusion import _AGAINST, _CAUTIONS, _NEEDED, conclude
from sidecar.doctor.messages import Held
from sidecar.doctor.verdicts import verdicts_of
from tests.doctor.world import World
from tests.fakes.foreign_sts import Knobs


def concluded(knobs: Knobs | None = None, **case: Any) -> Any:
    return conclude(verdicts_of(World(knobs, **case).examine()))


def test_a_server_that_does_all_of_it_fits() -> None:
    result = concluded()
    assert (result.fits, result.against, result.open) == (True, (), ())


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        (Knobs(subject="decode"), "exchanges subject tokens that nobody issued"),
        (Knobs(actor="refuse"), "refuses actor tokens"),
        (Knobs(actor="ignore"), "takes garbage for an actor token"),
        (Knobs(actor="decode"), "does not verify actor tokens"),
        (Knobs(actor="drop"), "ignores the actor token"),
        (Knobs(act="none"), "do not name the actor"),
        (Knobs(opaque="jwe", introspects=False), "cannot be read"),
        (Knobs(act="flat"), "loses the first actor"),
        (Knobs(audience="ignore"), "refuses the second hop"),
        (Knobs(act="rewrite"), "rewrites the actors"),
        (Knobs(max_actors=2), "third hop loses"),
        (Knobs(actor="lenient"), "issues an impersonation token"),
        (Knobs(without_actor="drop"), "drops the chain"),
        (Knobs(bind="no"), "does not prove who asked"),
        (Knobs(delegated_actor=True), "takes a delegated token as actor"),
        (Knobs(sub="client"), "can change the subject"),
        (Knobs(audience="ignore", requester=False), "sts_audience_mismatch"),
        (Knobs(life="new"), "sts_lifetime"),
        (Knobs(secret="ignore"), "does not check the credential"),
    ],
)
def test_one_behaviour_is_reason_enough(knobs: Knobs, reason: str) -> None:
    result = concluded(knobs)
    assert not result.fits
    assert any(reason in one for one in result.against)


@pytest.mark.parametrize(
    ("knobs", "caution"),
    [
        (Knobs(scope="widen"), "scope can widen"),
        (Knobs(scope_absent="client"), "always send scope"),
        (Knobs(narrows=False), "does not narrow"),
        (Knobs(audience="copy"), "does not know its audiences"),
        (Knobs(requester=False), "any client exchanges any token"),
        (Knobs(user_as_actor=True), "may name a user"),
        (Knobs(halves="accept"), "half of an actor pair"),
        (Knobs(duplicates="accept"), "a repeated scope passes"),
        (Knobs(dpop="free"), "frees sender-bound tokens"),
        (Knobs(), "does not end those exchanged for it"),
    ],
)
def test_a_weakness_to_live_with_is_told(knobs: Knobs, caution: str) -> None:
    result = concluded(knobs)
    assert result.fits
    assert any(caution in one for one in result.cautions)


@pytest.mark.parametrize(
    ("knobs", "caution"),
    [
        (Knobs(), None),
        (Knobs(may_act="ignore"), "does not enforce may_act"),
        (Knobs(may_act="broken"), "refuses even the actor that may_act names"),
    ],
)
def test_a_may_act_that_binds_nobody_or_serves_nobody_is_told(knobs: Knobs, caution: str | None) -> None:
    world = World(knobs)
    held = Held(world.sts.user_token(may_act={"sub": "agent-b"}), "subject with may_act", TOKEN_TYPE_ACCESS_TOKEN)
    world.case = replace(world.case, may_act=held)
    told = [one for one in conclude(verdicts_of(world.examine())).cautions if "may_act" in one]
    assert [caution is not None and caution in one for one in told] == ([] if caution is None else [True])


@pytest.mark.parametrize(
    ("case", "question"),
    [
        ({"audiences": ()}, "puts the audience into aud"),
        ({"subject": {"may_act": {"sub": "agent-c"}}}, "accepts actor_token"),
    ],
)
def test_what_was_not_seen_is_no_fit(case: dict[str, Any], question: str) -> None:
    result = concluded(**case)
    assert (result.fits, result.against) == (False, ())
    assert question in result.open


def test_naming_the_client_that_asks_is_no_reason_against_a_server() -> None:
    result = concluded(Knobs(actor="ignore", act="client"))
    assert result.against == ()
    assert result.fits


def test_every_rule_is_about_a_cell() -> None:
    ids = {cell.id for cell in verdicts_of(World().examine())}
    assert {cell for cell, _ in (*_AGAINST, *_CAUTIONS)} | set(_NEEDED) <= ids
