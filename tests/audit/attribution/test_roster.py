from pathlib import Path

import pytest

from delegation_audit.attribution.roster import Roster, RosterError, load, parse

WRITER = "spiffe://example.org/agent/writer"

LIST = f"""
# agents of the shop
writer = {WRITER}, writer-client, ip:10.0.3.0/24, user-agent:writer/*
spiffe://example.org/tools/*
system:serviceaccount:shop:reader  # reads the shop
client:front-agent
10.1.2.3
2001:db8::/64
python-agent/*
arn:aws:iam::111122223333:role/crm-agent
"""


@pytest.fixture
def roster() -> Roster:
    return parse(LIST)


@pytest.mark.parametrize(
    ("value", "agent"),
    [
        (WRITER, "writer"),
        ("WRITER-CLIENT", "writer"),
        ("example.org/agent/writer", "writer"),
        ("service-account-writer-client", "writer"),
        ("client:writer-client", "writer"),
        ("spiffe://example.org/agent/writer2", None),
        ("spiffe://other.example/agent/writer", None),
        ("spiffe://example.org/tools/crm", "spiffe://example.org/tools/crm"),
        ("system:serviceaccount:shop:reader", "system:serviceaccount:shop:reader"),
        ("system:serviceaccount:other:reader", None),
        ("front-agent", "front-agent"),
        ("arn:aws:sts::111122223333:assumed-role/crm-agent/session-1", "arn:aws:iam::111122223333:role/crm-agent"),
        ("arn:aws:sts::999922223333:assumed-role/crm-agent/session-1", None),
        ("alice", None),
    ],
)
def test_an_identity_is_an_agent_by_its_name(roster: Roster, value: str, agent: str | None) -> None:
    assert roster.identity(value) == agent


@pytest.mark.parametrize(
    ("value", "agent"),
    [
        ("10.0.3.7", "writer"),
        ("10.0.3.7:44321", "writer"),
        ("::ffff:10.0.3.7", "writer"),
        ("10.1.2.3", "10.1.2.3"),
        ("[2001:db8::5]:443", "2001:db8::/64"),
        ("2001:db8::5", "2001:db8::/64"),
        ("10.0.4.7", None),
        ("unix:", None),
    ],
)
def test_an_address_is_an_agent_by_its_network(roster: Roster, value: str, agent: str | None) -> None:
    assert roster.address(value) == agent


@pytest.mark.parametrize(
    ("value", "agent"),
    [
        ("Writer/2.1 (linux)", "writer"),
        ("python-agent/1", "python-agent/*"),
        ("front-agent/3", "front-agent"),
        ("Mozilla/5.0", None),
    ],
)
def test_a_user_agent_is_an_agent_by_a_pattern(roster: Roster, value: str, agent: str | None) -> None:
    assert roster.user_agent(value) == agent


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n# nothing\n", "agents: names no agent; write one per line"),
        ("a = b, , c", "agents:1: an identifier is empty"),
        ("a = x\nb = X", "agents:2: 'X' already belongs to the agent 'a'; write it once"),
        ("ip:10.0.0", "agents:1: '10.0.0' is no address and no network"),
        ("*", "agents:1: '*' would make everybody an agent"),
        ("spiffe://*", "agents:1: 'spiffe://*' would make everybody an agent"),
        ("0.0.0.0/0", "agents:1: '0.0.0.0/0' would make every address an agent's"),
    ],
)
def test_a_list_that_is_none_says_where_and_the_fix(text: str, said: str) -> None:
    with pytest.raises(RosterError) as error:
        parse(text)
    assert said in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    absent, binary = tmp_path / "absent", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path, said in ((absent, "cannot be read: No such file"), (binary, "not UTF-8")):
        with pytest.raises(RosterError) as error:
            load(str(path))
        assert f"{path}: {said}" in str(error.value)


@pytest.mark.parametrize("line", ["10.0.3.0/24", "ip:10.0.3.0/24", "cidr: 10.0.3.0/24", "IP : 10.0.3.0/24"])
def test_a_kind_of_identifier_may_be_said(line: str) -> None:
    assert parse(line).address("10.0.3.9") == "10.0.3.0/24"
    assert parse("client_id: a\nsa: b").identity("B") == "b"


def test_many_values_do_not_fill_the_memory(roster: Roster) -> None:
    for number in range(40_000):
        roster.identity(f"user{number}")
    assert len(roster._known) <= 16384


def test_the_example_of_the_page_is_a_list() -> None:
    page = (Path(__file__).parents[3] / "docs" / "attribution.md").read_text()
    found = parse(page.partition("# agents.txt\n")[2].partition("```")[0])
    assert found.identity("spiffe://acme.example/agent/writer") == "writer"
    assert found.user_agent("writer/2") == "writer"
