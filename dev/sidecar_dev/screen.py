"""Long form of the demo's output: every command, header and record; colour on a terminal, plain text in a pipe."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from sidecar_dev.stage import Check, Record, Scene, count

_SHOWN: Final = (
    "event",
    "workload",
    "decision",
    "reason",
    "peer",
    "subject",
    "actor",
    "chain",
    "audience",
    "scope",
    "route",
    "op",
    "status",
)


class Screen:
    """Shows one scene after the other, with a line where a new act begins. Commands run in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._console = Console(highlight=False, soft_wrap=True)
        self._act = ""

    def say(self, text: str) -> None:
        """Print one dim line."""
        self._console.print(f"[dim]{_plain(text)}[/]")

    def copy(self, command: str) -> None:
        """Print a command unstyled, to be copied."""
        self._console.print(_plain(command))

    def show(self, scene: Scene) -> None:
        """Print one scene."""
        out = self._console.print
        if scene.act != self._act:
            self._act = scene.act
            out(f"\n[bold reverse] {scene.act} [/]")
        out(f"\n[bold]{scene.title}[/]")
        out(f"[dim]{_plain(scene.story)}[/]")
        for line in scene.lines:
            out(f"    {_plain(line)}")
        for number, record in enumerate(scene.hops, 1):
            out(_plain(_hop(number, record)))
        for check in scene.checks:
            self._show_check(check)
        for record in scene.records:
            out(f"  [dim]record {_plain(json.dumps(_select(record), ensure_ascii=False))}[/]")

    def sum_up(self, scenes: Sequence[Scene], *, held: bool, seconds: float) -> None:
        """Print the last line."""
        kept, all_of_them = count(scenes)
        verdict = "[green]everything held[/]" if held else "[red]something did not hold[/]"
        self._console.print(f"\n{verdict}: {kept} of {all_of_them} checks, {seconds:.1f} s")

    def _show_check(self, check: Check) -> None:
        for command in check.commands:
            line = f"cd {shlex.quote(str(self._folder))} && {command}"
            self._console.print(f"  [cyan]$[/] [dim]{_plain(line)}[/]")
        mark = "[green]✓[/]" if check.held else "[red]✗[/]"
        wanted = "" if check.held else f"   [red]expected {_plain(check.expected)}[/]"
        self._console.print(f"  {mark} {_plain(check.title)}: [bold]{_plain(check.said)}[/]{wanted}")


def _hop(number: int, record: Record) -> str:
    chain = "".join(
        f"\n        {'← ' if place else 'by '}{name}" for place, name in enumerate(record.get("chain") or ())
    )
    scope = " ".join(record.get("scope") or ())
    asked = f"{record.get('op')} at {record.get('audience')}"
    return f"    hop {number}, for {record.get('subject')}, scope {scope}: {asked}{chain}"


def _select(record: Record) -> Record:
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
