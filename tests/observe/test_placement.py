from __future__ import annotations

from sidecar.observe.placement import placement


def test_what_the_downward_api_says_is_told() -> None:
    environ = {
        "POD_NAME": "planner-5d9f",
        "POD_NAMESPACE": "agents",
        "POD_SERVICE_ACCOUNT": "planner",
        "NODE_NAME": "n1",
    }
    assert placement(environ) == "pod=planner-5d9f namespace=agents service_account=planner node=n1"
    assert placement({**environ, "NODE_NAME": ""}) == "pod=planner-5d9f namespace=agents service_account=planner"


def test_elsewhere_nothing_is() -> None:
    assert placement({"HOME": "/"}) is None
