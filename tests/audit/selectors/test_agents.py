from pathlib import Path

import pytest

from delegation_audit.rules import Place
from delegation_audit.selectors.agents import Agents, agents_of, is_of_sidecar
from delegation_audit.selectors.entries import Entry, Origin, selector_of


@pytest.mark.parametrize(
    ("spiffe_id", "is_agent"),
    [
        ("spiffe://a.example/agent/writer", True),
        ("spiffe://a.example/ns/agents/sa/writer", True),
        ("spiffe://a.example/ns/shop/sa/web", False),
        ("spiffe://a.example/tool/agent-config", False),
        ("spiffe://a.example/spire/agent/k8s_psat/c/n", False),
        ("spiffe://agent/web", False),
    ],
)
def test_by_default_a_segment_of_the_path_makes_an_agent(spiffe_id: str, is_agent: bool) -> None:
    assert Agents().includes(spiffe_id) is is_agent


@pytest.mark.parametrize(
    "pattern", ["spiffe://a.example/bots/*", "/bots/*", "a.example/bots/x", "spiffe://*/bots/x", "/bots/x"]
)
def test_a_pattern_replaces_the_default(pattern: str) -> None:
    agents = Agents([pattern])
    assert agents.includes("spiffe://a.example/bots/x")
    assert not agents.includes("spiffe://a.example/agent/x")
    assert not agents.includes("spiffe://a.example/bots2/x")


def test_a_file_holds_one_pattern_a_line(tmp_path: Path) -> None:
    file = tmp_path / "agents"
    file.write_text("# ours\n/bots/*   # all of them\n\nspiffe://a.example/crm\n")
    agents = agents_of([str(file), "/more/*"])
    assert all(agents.includes(f"spiffe://a.example/{path}") for path in ("bots/x", "crm", "more/x"))
    assert not agents.includes("spiffe://a.example/crm2")


def test_a_list_of_the_other_audits_gives_its_spiffe_ids(tmp_path: Path) -> None:
    file = tmp_path / "agents"
    file.write_text("writer = spiffe://a.example/bots/w, writer-client, ip:10.0.3.0/24, user-agent:writer/*\n")
    agents = agents_of([str(file)])
    assert agents.includes("spiffe://a.example/bots/w")
    assert not agents.includes("spiffe://a.example/writer")
    assert not agents.includes("spiffe://a.example/user-agent:writer/x")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"writer = writer-client\n", b"\xff\xfe"])
def test_a_file_without_a_pattern_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "agents"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"--agents .*agents: "):
        agents_of([str(file)])


def test_a_word_that_is_neither_file_nor_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match=r"agents\.txt: neither a file nor a pattern"):
        agents_of(["agents.txt"])


@pytest.mark.parametrize(
    ("selector", "names_sidecar"),
    [
        ("k8s:container-name:sidecar", True),
        ("k8s:container-name:sidecar-2", True),
        ("k8s:container-name:writer", False),
        ("k8s:container-name:sidecars", False),
        ("k8s:container-image:registry.example/team/sidecar:1", True),
        ("k8s:container-image:sidecar.example/team/writer:1", False),
        ("k8s:pod-image:registry.example/sidecar:1", False),
        ("unix:user:sidecar", True),
        ("unix:path:/usr/bin/sidecar", True),
        ("unix:path:/opt/sidecar/bin/python3", False),
        ("docker:label:com.docker.compose.service:writer-sidecar", True),
        ("dev:socket:/run/writer.sock", True),
    ],
)
def test_a_sidecar_is_known_by_its_container_user_program_or_socket(selector: str, names_sidecar: bool) -> None:
    entry = Entry(
        place=Place(file="a"),
        origin=Origin.SERVER,
        name="",
        spiffe_id="spiffe://a.example/agent/x",
        parent_id=None,
        selectors=frozenset({selector_of(selector)}),
    )
    assert is_of_sidecar(entry) is names_sidecar
