import json

import pytest

from delegation_core.errors import Denied
from delegation_core.spiffe_id import SpiffeId
from sidecar.check import check
from sidecar.config import json_schema, load_sidecar, load_sts
from tests.config.documents import EXAMPLES

WRITER = SpiffeId("spiffe://acme.example/agent/writer")


def test_every_example_is_tested_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {
        "a2a",
        "agent",
        "domains",
        "entry",
        "files",
        "mcp",
        "mcp-server",
        "observe",
        "outside",
        "own-authority",
        "platform",
        "sts",
        "sts-many",
        "tool",
    }


@pytest.mark.parametrize("name", ["a2a", "agent", "entry", "files", "mcp-server", "tool"])
def test_an_example_loads_and_makes_a_policy(name: str) -> None:
    settings = load_sidecar(EXAMPLES / f"{name}.yaml", {})
    policy = settings.policy(WRITER, 7)
    assert policy.workload == WRITER
    assert str(WRITER) in policy.audiences
    assert policy.number == 7
    assert set(policy.issuers) == {"https://sts.acme.example"}


def test_the_example_of_two_domains_keeps_the_issuers_apart() -> None:
    policy = load_sidecar(EXAMPLES / "domains.yaml", {}).policy(WRITER, 1)
    assert {route.name: set(route.issuers) for route in policy.inbound.routes} == {
        "customers": {"https://sts.acme.example"},
        "orders": {"https://sts.partner.example"},
        "update": {"https://sts.acme.example"},
    }


def test_the_token_services_example_loads() -> None:
    settings = load_sts(EXAMPLES / "sts.yaml", {})
    assert settings.policy.issuer == "https://sts.acme.example"
    assert settings.server.port == 7444
    assert str(settings.key_directory) == "/etc/sidecar/sts-keys"
    assert [keys.issuer for keys in settings.login_keys] == [
        "https://login.acme.example",
        "https://sts.partner.example",
    ]


def test_the_example_of_many_agents_joins_its_files_and_writes_out_its_groups() -> None:
    policy = load_sts(EXAMPLES / "sts-many.yaml", {}).policy
    pairs = {(str(rule.actor).rpartition("/")[2], rule.audience.rpartition("/")[2]) for rule in policy.rules}
    assert pairs == {
        *(("planner", "reader"), ("planner", "summary"), ("buyer", "reader"), ("buyer", "summary")),
        *(("reader", "stock"), ("reader", "orders"), ("summary", "stock"), ("summary", "orders")),
    }
    assert [str(target.workload).rpartition("/")[2] for target in policy.targets] == [
        *("reader", "summary", "stock"),
        "orders",
    ]


def test_entry_and_token_service_agree_on_what_a_login_is_worth() -> None:
    entry = load_sidecar(EXAMPLES / "entry.yaml", {}).entry
    service = load_sts(EXAMPLES / "sts.yaml", {}).policy
    assert entry is not None
    user = entry.issuers["https://login.acme.example"]
    assert service.login_issuers["https://login.acme.example"].for_client("front") == user


def test_a_server_of_tools_may_be_asked_for_what_its_example_lists_and_calls_nobody() -> None:
    settings = load_sidecar(EXAMPLES / "mcp-server.yaml", {})
    (route,) = settings.policy(WRITER, 1).inbound.routes
    assert route.operations is not None
    assert {"tools/list", "tools/call:find_customer"} <= set(route.operations.keys)
    with pytest.raises(Denied, match="operation"):
        route.for_operation("tools/call:delete_customer")
    assert not settings.outbound_routes.routes


def test_the_workload_of_the_entry_has_one_name_in_all_examples_and_pages() -> None:
    pages = EXAMPLES.parent / "docs"
    files = [*EXAMPLES.rglob("*.yaml"), *(pages / name for name in ("door.md", "mcp.md", "a2a.md", "sts.md"))]
    assert [file.name for file in files if "spiffe://acme.example/agent/front" in file.read_text()] == []
    (entry,) = load_sts(EXAMPLES / "sts.yaml", {}).policy.entries
    assert str(entry) == "spiffe://acme.example/front"


@pytest.mark.parametrize("name", ["sidecar", "sts", "platform"])
def test_the_schema_beside_the_examples_is_that_of_the_code(name: str) -> None:
    # To write it again: make docs
    schema = json_schema(sts=name == "sts", platform=name == "platform")
    assert json.loads((EXAMPLES / f"{name}.schema.json").read_text()) == schema


@pytest.mark.parametrize("name", ["agent", "tool"])
def test_a_sidecars_file_is_none_of_a_token_service(name: str) -> None:
    assert check(EXAMPLES / f"{name}.yaml", {}, sts=True).problems


def test_a_token_services_file_is_none_of_a_sidecar() -> None:
    assert check(EXAMPLES / "sts.yaml", {}).problems
