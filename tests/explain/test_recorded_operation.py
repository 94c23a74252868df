from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.operation import Operations
from delegation_core.route import OutboundRoute
from sidecar.explain.recorded_operation import key_of, operation_seen
from tests.core.world import TO_CRM
from tests.explain.judged import outbound


def route(protocol: Any, *keys: str) -> OutboundRoute:
    return replace(
        TO_CRM, protocol=protocol, operations=Operations({key: replace(TO_CRM, operation=key) for key in keys})
    )


@pytest.mark.parametrize("path", ["/shop.Orders/Get", "/crm/shop.Orders/Get"])
def test_a_call_of_grpc_is_found_by_its_path(path: str) -> None:
    orders = route("grpc", "shop.Orders:Get", "shop.Orders:*")
    record = outbound(path=path, op="/shop.Orders/other")
    assert key_of(record, orders) == "shop.Orders:Get"
    assert operation_seen(record, orders) == "/shop.Orders/other among shop.Orders/*, shop.Orders/Get"


def test_an_operation_of_another_protocol_is_found_by_its_name() -> None:
    tools = route("mcp", "tools/call:search")
    record = outbound(path="/shop.Orders/Get", op="tools/call:search")
    assert key_of(record, tools) == "tools/call:search"
    assert operation_seen(record, tools) == "tools/call:search among tools/call:search"


def test_a_path_that_names_no_method_of_a_service_is_refused() -> None:
    with pytest.raises(Denied) as refused:
        key_of(outbound(path="/nothing", op="other"), route("grpc", "shop.Orders:Get"))
    assert refused.value.reason is Reason.OPERATION_MALFORMED
