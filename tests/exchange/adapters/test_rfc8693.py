from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Plan, plan_own
from delegation_core.rfc8693 import TOKEN_TYPE_ID_TOKEN
from sidecar.exchange.adapters.rfc8693 import ADAPTER
from tests.exchange.adapters.steps import GRANTED, answered, ended, first, wanted
from tests.exchange.world import plan, policy, route, subject_of
from tests.fakes.tokens import CRM, NOW, encode


def own_plan() -> Plan:
    own = replace(route(), token="self")
    allowed = replace(policy(), outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    return plan_own(own, policy=allowed, now=NOW)


def test_each_parameter_is_there_once() -> None:
    asked = plan(route(scopes=("docs.read", "crm.read")))
    step = first(ADAPTER.exchange(wanted(ADAPTER, asked, subject_token_type=TOKEN_TYPE_ID_TOKEN)))
    assert sorted(step.form) == sorted(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_of(asked).raw,
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "actor_token": "actor.token",
            "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": str(CRM),
            "scope": "crm.read docs.read",
        }.items()
    )
    assert (step.endpoint, step.authenticate, step.shared, step.once) == ("token", True, False, False)


def test_an_answer_is_read_against_what_was_asked_for() -> None:
    asked = wanted(ADAPTER, plan())
    assert ended(ADAPTER.exchange(asked), answered(scope="crm.read")).access_token == "a.b.c"
    with pytest.raises(SidecarError) as caught:
        ended(ADAPTER.exchange(asked), answered(scope="docs.read"))
    assert caught.value.reason is Reason.STS_SCOPE_WIDENED


@pytest.mark.parametrize(
    ("option", "value", "parameters"),
    [
        ("target", "resource", {"resource": str(CRM), "audience": None}),
        ("requested_token_type", "jwt", {"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}),
        ("requested_token_type", "none", {"requested_token_type": None}),
        ("actor_token", "client", {"actor_token": None, "actor_token_type": None}),
    ],
)
def test_an_option_changes_its_parameter(option: str, value: str, parameters: dict[str, str | None]) -> None:
    form = dict(first(ADAPTER.exchange(wanted(ADAPTER, plan(), {option: value}))).form)
    assert {name: form.get(name) for name in parameters} == parameters


def test_the_issued_type_is_the_one_requested() -> None:
    asked = wanted(ADAPTER, plan(), {"requested_token_type": "jwt"})
    jwt = answered(issued_token_type="urn:ietf:params:oauth:token-type:jwt")
    assert ended(ADAPTER.exchange(asked), jwt).access_token == "a.b.c"
    with pytest.raises(SidecarError) as caught:
        ended(ADAPTER.exchange(asked), answered())
    assert caught.value.reason is Reason.STS_TOKEN_TYPE


def test_a_server_that_takes_only_its_own_tokens_is_shown_one_that_others_share() -> None:
    asked = wanted(ADAPTER, plan(), {"actor_token": "own-token"}, svid=None)
    steps = ADAPTER.exchange(asked)
    own = first(steps)
    assert (own.form, own.shared) == ((("grant_type", "client_credentials"),), True)
    exchange = steps.send(answered(access_token="own.access.token", issued_token_type=None))
    form = dict(exchange.form)
    assert form["actor_token"] == "own.access.token"
    assert form["actor_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert not exchange.shared


def test_only_the_option_that_needs_a_jwt_svid_asks_for_one() -> None:
    needs = {
        value: ADAPTER.needs_jwt_svid(ADAPTER.complete({"actor_token": value}))
        for value in ADAPTER.options["actor_token"]
    }
    assert needs == {"jwt-svid": True, "own-token": False, "client": False}


def test_a_token_of_the_workload_s_own_is_asked_for_by_client_credentials() -> None:
    assert ADAPTER.own is not None
    asked = wanted(ADAPTER, own_plan())
    assert dict(parse_qsl("&".join("=".join(pair) for pair in first(ADAPTER.own(asked)).form))) == {
        "grant_type": "client_credentials", "resource": str(CRM), "scope": "crm.read",
    }  # fmt: skip
    assert ended(ADAPTER.own(asked), answered(issued_token_type=None)).access_token == "a.b.c"
    with pytest.raises(SidecarError) as caught:  # an exchanged token
        ended(ADAPTER.own(asked), answered())
    assert caught.value.reason is Reason.STS_BAD_RESPONSE
    with pytest.raises(ValueError, match="no subject token is exchanged"):
        next(ADAPTER.exchange(asked))


def test_golden_answers_are_of_this_form() -> None:
    assert answered().body == encode(GRANTED)
