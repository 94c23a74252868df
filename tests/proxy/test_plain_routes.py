"""Routes that the native engine may serve: each fact that only Python knows about takes a route from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.proxy.native import warm_inbound, warm_outbound
from tests.core.world import SEARCH, TO_CRM


@pytest.mark.parametrize(
    "fact",
    [{"record_first": True}, {"linger_s": 5}, {"forwarded": True}, {"pass_token": True}, {"protocol": "grpc"}],
    ids=str,
)
def test_an_inbound_route_with_a_fact_of_python_is_left_to_it(fact: dict[str, Any]) -> None:
    assert warm_inbound.is_plain(SEARCH)
    assert not warm_inbound.is_plain(replace(SEARCH, **fact))


@pytest.mark.parametrize(
    "fact",
    [
        {"record_first": True},
        {"txn_token": True},
        {"http_version": "2"},
        {"peer": None},
        {"token": "inject"},
        {"protocol": "grpc"},
    ],
    ids=str,
)
def test_an_outbound_route_with_a_fact_of_python_is_left_to_it(fact: dict[str, Any]) -> None:
    assert warm_outbound.is_plain(TO_CRM)
    assert not warm_outbound.is_plain(replace(TO_CRM, **fact))
