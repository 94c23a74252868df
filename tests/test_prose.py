"""The prose check of ``make lint``: each fault beside the same text without it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "prose.py"


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the check in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(SCRIPT))["main"]

    def check(*arguments: str) -> tuple[int, str]:
        status = main(list(arguments))
        return status, capsys.readouterr().out

    return check


PROSE = {
    "room/module.py": [
        ('"""What waits here."""\n', '"""Queue of waiting requests."""\n'),
        ('def f():\n    """Whether it is full."""\n', 'def f():\n    """Tell if it is full."""\n'),
        ('class C:\n    """\n    How it ends.\n    """\n', 'class C:\n    """\n    End of a connection.\n    """\n'),
        ('async def f():\n    """Who\'s next."""\n', 'async def f():\n    """Whole turns."""\n'),
        ("x = 1  # begins anew\n", "x = 1  # starts over\n"),
    ],
    "page.md": [
        ("One turn of the loop.\n", "One event-loop iteration.\n"),
        ("The address cannot be had.\n", "What the address is: in use.\n"),
    ],
}


@pytest.mark.parametrize(("path", "bad", "good"), [(path, *pair) for path, pairs in PROSE.items() for pair in pairs])
def test_a_fault_fails_and_the_same_file_without_it_passes(
    path: str, bad: str, good: str, tmp_path: Path, run: Run
) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(bad)
    status, said = run(path)
    assert status == 1
    assert said.startswith(f"{path}:")
    file.write_text(good)
    assert run(path) == (0, "")


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Refuse a record that is too long\n", ""),
        (f"{'x' * 72}\n\nbody\n", ""),
        (f"{'x' * 73}\n", "73 characters"),
        ("Refuse a record.\n", "full stop"),
        ("Refuse a record\nbecause\n", "not empty"),
        ("# only comments\n", "no subject"),
    ],
)
def test_a_commit_subject_has_at_most_72_characters(message: str, fault: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "message").write_text(message)
    status, said = run("--commit-msg", "message")
    assert status == bool(fault)
    assert fault in said
