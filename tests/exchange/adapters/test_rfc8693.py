from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from sidecar.delegation.outbound_routes import OutboundRoutes
from sidecar.delegation.plan import plan_own
from sidecar.delegation.rfc8693 import TOKEN_TYPE_ID_TOKEN
from sidecar.errors import Reason, SidecarError
from sidecar.exchange.adapters import ADAPTERS, rfc8693
from tests.exchange.world import plan, policy, route, subject_of
from tests.fakes.tokens import CRM, NOW, encode

GRANTED = {
    "access_token": "a.b.c",
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "token_type": "Bearer",
}


def test_the_dialect_is_found_by_its_name() -> None:
    assert ADAPTERS["rfc8693"] is rfc8693


def test_each_parameter_is_there_once() -> None:
    wanted = plan(route(scopes=("docs.read", "crm.read")))
    form = parse_qsl(
        rfc8693.build(wanted, subject_of(wanted), "actor.token", subject_token_type=TOKEN_TYPE_ID_TOKEN).decode()
    )
    assert sorted(form) == sorted(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_of(wanted).raw,
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "actor_token": "actor.token",
            "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": str(CRM),
            "scope": "crm.read docs.read",
        }.items()
    )


def test_an_answer_is_read_against_what_was_asked_for() -> None:
    answer = rfc8693.read(200, "application/json", encode({**GRANTED, "scope": "crm.read"}), plan=plan())
    assert answer.access_token == "a.b.c"
    with pytest.raises(SidecarError) as caught:
        rfc8693.read(200, "application/json", encode({**GRANTED, "scope": "docs.read"}), plan=plan())
    assert caught.value.reason is Reason.STS_SCOPE_WIDENED


def test_a_token_of_the_workload_s_own_is_asked_for_by_client_credentials() -> None:
    own = replace(route(), token="self")
    allowed = replace(policy(), outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    wanted = plan_own(own, policy=allowed, now=NOW)
    assert dict(parse_qsl(rfc8693.build_own(wanted).decode())) == {
        "grant_type": "client_credentials", "resource": str(CRM), "scope": "crm.read",
    }  # fmt: skip
    granted = {name: value for name, value in GRANTED.items() if name != "issued_token_type"}
    assert rfc8693.read(200, "application/json", encode(granted), plan=wanted).access_token == "a.b.c"
    with pytest.raises(SidecarError) as caught:  # an exchanged token
        rfc8693.read(200, "application/json", encode(GRANTED), plan=wanted)
    assert caught.value.reason is Reason.STS_BAD_RESPONSE
