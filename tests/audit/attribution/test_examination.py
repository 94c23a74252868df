import gzip
import random
from collections import Counter
from pathlib import Path

import pytest

from delegation_audit.attribution.examination import Result, examine
from delegation_audit.attribution.mapping_files import MappingError
from delegation_audit.attribution.roster import RosterError
from delegation_audit.attribution.verdicts import Kind
from tests.audit.attribution.labelled import Labelled, delegates, impersonators

SEED = 20261128


def examined(tmp_path: Path, agents: list[Labelled]) -> Result:
    """Examine the lines of all agents, mixed in two files."""
    lines = [line for agent in agents for line in agent.lines]
    random.Random(SEED).shuffle(lines)
    half = len(lines) // 2
    (tmp_path / "one.log").write_text("\n".join(lines[:half]))
    (tmp_path / "two.log.gz").write_bytes(gzip.compress("\n".join(lines[half:]).encode()))
    (tmp_path / "agents.txt").write_text("\n".join(agent.entry for agent in agents))
    return examine([tmp_path / "one.log", tmp_path / "two.log.gz"], agents=str(tmp_path / "agents.txt"))


def test_of_500_impersonators_none_is_called_delegating_and_few_cannot_be_told(tmp_path: Path) -> None:
    labelled = impersonators(500, SEED)
    result = examined(tmp_path, labelled)
    found = Counter(agent.verdict for agent in result.agents)
    assert {agent.name for agent in result.agents} == {agent.name for agent in labelled}
    assert (found[Kind.DELEGATES], found[Kind.MIXED], found[Kind.OWN_AUTHORITY]) == (0, 0, 0)
    assert found[Kind.CANNOT_TELL] <= 50
    assert result.summary[0] == found[Kind.IMPERSONATES]
    assert (result.tally.no_agent, result.not_understood, result.no_requests) == (0, 0, 0)


def test_agents_that_delegate_are_told_from_them(tmp_path: Path) -> None:
    labelled = delegates(100, SEED)
    result = examined(tmp_path, labelled)
    assert Counter(agent.verdict for agent in result.agents) == {Kind.DELEGATES: 100}
    assert result.summary == (0, "agents that impersonate the user in at least one request: 0 of 100")


def test_a_file_of_the_operator_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"user":"a","method":"GET"}\n')
    with pytest.raises(RosterError):
        examine([tmp_path / "log"], agents=str(tmp_path / "absent"))
    with pytest.raises(MappingError):
        examine([tmp_path / "log"], mapping=[str(tmp_path / "absent")])


def test_without_a_list_the_summary_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"sub":"a","act":{"sub":"w"},"method":"GET"}\n{"sub":"a","method":"GET"}\n')
    result = examine([tmp_path / "log"])
    assert result.summary == (
        0,
        "callers that delegate: 1 of 1; without a list of agents (--agents), nobody else can be called an agent",
    )
