from __future__ import annotations

from pathlib import Path

from sidecar.observe.placement import network_namespace, placement


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


def test_a_network_namespace_is_named_with_the_boot_of_its_machine(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("b00t\n")
    (tmp_path / "self/ns").mkdir(parents=True)
    assert network_namespace(tmp_path) is None
    (tmp_path / "self/ns/net").symlink_to("net:[4026531840]")
    assert network_namespace(tmp_path) == "b00t net:[4026531840]"
