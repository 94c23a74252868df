from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from delegation_core.errors import ConfigError
from delegation_core.spiffe_id import TrustDomain
from sidecar_dev.files import write_whole
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_api import EntriesFile, add_arguments, run

ACME = TrustDomain("acme.example")


def entries_for(pid: int | None, path: str = "agent/planner") -> bytes:
    pids = "[]" if pid is None else f"[{pid}]"
    return f"entries: [{{spiffe_id: spiffe://acme.example/{path}, selectors: {{pids: {pids}}}}}]".encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "entries.yaml"
    write_whole(path, entries_for(1))
    return path


@pytest.fixture
def registry() -> Registry:
    return Registry([TrustDomainAuthority(ACME)])


def paths_of(registry: Registry) -> list[str]:
    return [entry.spiffe_id.path for entry in registry.entries]


def test_a_changed_file_is_taken_over(file: Path, registry: Registry) -> None:
    entries = EntriesFile(file, [ACME])
    entries.refresh(registry)
    write_whole(file, entries_for(1, "agent/writer"))
    entries.refresh(registry)
    assert paths_of(registry) == ["/agent/writer"]


def test_a_file_changed_twice_within_its_time_stamp_is_taken_over(file: Path, registry: Registry) -> None:
    entries = EntriesFile(file, [ACME])
    facts = file.stat()
    entries.refresh(registry)
    with file.open("wb") as same_file:
        same_file.write(entries_for(2))  # as long as before
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    entries.refresh(registry)
    assert registry.entries[0].selectors.pids == frozenset({2})


def test_a_file_that_did_not_change_wakes_nobody(file: Path, registry: Registry) -> None:
    entries = EntriesFile(file, [ACME])
    entries.refresh(registry)
    waited_for = registry.changed
    entries.refresh(registry)
    entries.refresh(registry, force=True)
    assert not waited_for.is_set()


def test_an_old_file_is_read_again_only_when_told(file: Path, registry: Registry) -> None:
    os.utime(file, (1, 1))
    entries = EntriesFile(file, [ACME])
    entries.refresh(registry)
    registry.replace_entries([])
    entries.refresh(registry)
    assert paths_of(registry) == []
    entries.refresh(registry, force=True)
    assert paths_of(registry) == ["/agent/planner"]


@pytest.mark.parametrize("content", [b"entries: [", b"\xff", None], ids=["broken", "no utf-8", "gone"])
def test_a_file_that_cannot_be_used_changes_nothing_and_is_complained_of_once(
    file: Path, registry: Registry, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    entries = EntriesFile(file, [ACME])
    entries.refresh(registry)
    if content is None:
        file.unlink()
    else:
        write_whole(file, content)
    entries.refresh(registry)
    entries.refresh(registry)
    assert paths_of(registry) == ["/agent/planner"]
    assert capsys.readouterr().err.count("the entries stay as they are") == 1


def test_a_file_that_is_good_again_may_be_complained_of_again(
    file: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = EntriesFile(file, [ACME])
    for content in (b"x", entries_for(1), b"x"):
        write_whole(file, content)
        entries.refresh(registry)
    assert capsys.readouterr().err.count("the entries stay as they are") == 2


def test_the_first_read_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        EntriesFile(tmp_path / "none.yaml", [ACME]).read()


def exit_code(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        (["Acme.example"], "--trust-domain"),
        (["acme.example", "acme.example"], "named twice"),
        (["other.example"], "entries[0].spiffe_id"),
    ],
)
def test_unusable_arguments_are_told_with_exit_code_2(
    file: Path, capsys: pytest.CaptureFixture[str], domains: list[str], said: str
) -> None:
    options = [word for domain in domains for word in ("--trust-domain", domain)]
    assert exit_code("--socket", str(file.parent / "s"), "--entries", str(file), *options) == 2
    assert said in capsys.readouterr().err


def test_a_socket_that_cannot_be_made_is_told_with_exit_code_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    socket = str(file.parent / "none" / "s")
    assert exit_code("--socket", socket, "--entries", str(file), "--trust-domain", "acme.example") == 2
    assert socket in capsys.readouterr().err
