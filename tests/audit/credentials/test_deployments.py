from __future__ import annotations

import json

import pytest

from delegation_audit.credentials.deployments import (
    is_compose,
    is_pipeline,
    mcp_servers,
    read_compose,
    read_mcp,
    read_pipeline,
    read_settings,
)
from delegation_audit.credentials.fields import Exposure, Read
from delegation_audit.credentials.tree import read_documents


def found(read: Read) -> dict[tuple[str, str], str | None]:
    return {(field.name, field.value): field.owner for field in read.fields}


def test_an_mcp_servers_env_headers_args_and_url_are_fields_of_the_server() -> None:
    server = {
        "command": "npx",
        "args": ["--token", "value1", "--key=value2", "-e", "KEY=value3", "https://host/?api_key=value4"],
        "env": {"A": "value5"},
        "headers": {"X-Api-Key": "value6"},
        "url": "https://host/sse?token=value7",
    }
    fields = found(read_mcp("a.json", read_documents(json.dumps({"mcpServers": {"crm": server}}))[0]))
    for name, value in (
        ("token", "value1"),
        ("key", "value2"),
        ("KEY", "value3"),
        ("A", "value5"),
        ("X-Api-Key", "value6"),
    ):
        assert fields[name, value] == "MCP server crm"
    assert ("url", "https://host/sse?token=value7") in fields


@pytest.mark.parametrize(
    "document",
    [
        {"servers": {"a": {"url": "https://x"}}},
        {"mcp": {"servers": {"a": {"command": "x"}}}},
        {"context_servers": {"a": {"command": "x"}}},
        {"mcpServers": [{"name": "a", "command": "x"}]},
    ],
)
def test_clients_write_servers_in_several_ways(document: object) -> None:
    assert [name for name, _ in mcp_servers(read_documents(json.dumps(document))[0])] == ["a"]


def test_servers_that_are_something_else_are_no_mcp_servers() -> None:
    assert mcp_servers(read_documents('{"servers": {"a": {"port": 1}}}')[0]) == []


COMPOSE = """\
x-common: &common {SHARED: value1}
services:
  crm:
    image: crm
    environment: {<<: *common, KEY: value2}
    env_file: [crm.env, {path: more.env}]
  mail:
    build: {args: {TOKEN: value3}}
    environment: [KEY=value4]
    command: agent --api-key value5
"""


def test_a_services_environment_arguments_and_env_files_belong_to_it() -> None:
    (document,) = read_documents(COMPOSE)
    assert is_compose(document)
    read = read_compose("stack/compose.yaml", document)
    fields = found(read)
    assert fields["SHARED", "value1"] == "service crm" or fields["SHARED", "value1"] is None
    assert fields["KEY", "value2"] == "service crm"
    assert fields["TOKEN", "value3"] == "service mail"
    assert fields["KEY", "value4"] == "service mail"
    assert fields["api-key", "value5"] == "service mail"
    assert {(one.target, one.owner) for one in read.references} == {
        ("stack/crm.env", "service crm"),
        ("stack/more.env", "service crm"),
    }


def test_services_without_images_are_no_compose_file() -> None:
    assert not is_compose(read_documents("services: {a: {port: 1}}\n")[0])


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (".github/workflows/a.yml", True),
        ("x/.gitlab-ci.yml", True),
        (".circleci/config.yml", True),
        ("Jenkinsfile", True),
        ("azure-pipelines.yml", True),
        ("config/a.yml", False),
    ],
)
def test_a_ci_file_is_known_by_its_path(path: str, is_one: bool) -> None:
    assert is_pipeline(path) is is_one


def test_a_ci_files_jobs_own_their_values_and_scripts() -> None:
    job = "  deploy:\n    env: {KEY: value2}\n    steps:\n      - run: |\n          export TOKEN=value3\n"
    text = f"env: {{TOP: value1}}\njobs:\n{job}"
    read = read_pipeline(read_documents(text))
    fields = found(read)
    assert fields["TOP", "value1"] == "pipeline"
    assert fields["KEY", "value2"] == "job deploy"
    assert fields["TOKEN", "value3"] == "job deploy"
    assert {field.exposure for field in read.fields} == {Exposure.PIPELINE}
    assert [field.line for field in read.fields if field.name == "TOKEN"] == [7]


def test_jobs_at_the_top_level_own_theirs_too() -> None:
    read = read_pipeline(read_documents("variables: {A: value1}\nbuild:\n  script: [deploy --token value2]\n"))
    assert found(read)["token", "value2"] == "job build"


def test_settings_belong_to_their_folder() -> None:
    read = read_settings("charts/crm/values.yaml", read_documents("agent: {apiKey: value1}\n"))
    assert found(read) == {("apiKey", "value1"): "folder crm"}
    assert read.fields[0].object == "agent.apiKey"
