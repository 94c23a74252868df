"""Output of the demo's scenes: colour on a terminal, the same text without it in a pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sidecar_dev.mesh_settings import TRUST_DOMAIN
from sidecar_dev.stage import Check, Record, Scene, short

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
    """Shows one scene after the other, with a line where a new act begins."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._act = ""

    def say(self, text: str) -> None:
        """One dim line."""
        self._console.print(f"[dim]{_plain(text)}[/]")

    def copy(self, command: str) -> None:
        """A command exactly as it is to be copied."""
        self._console.print(_plain(command))

    def show(self, scene: Scene) -> None:
        """One scene."""
        out = self._console.print
        if scene.act != self._act:
            self._act = scene.act
            out(f"\n[bold reverse] {scene.act} [/]")
        out(f"\n[bold]{scene.title}[/]")
        out(f"[dim]{_plain(scene.story)}[/]")
        for line in scene.lines:
            out(f"    {_plain(line)}")
        if scene.hops:
            out(_hops(scene.hops))
        for check in scene.checks:
            self._show_check(check)
        for record in scene.records:
            out(f"  [dim]record {_plain(short(json.dumps(_selected(record), ensure_ascii=False)))}[/]")

    def sum_up(self, scenes: Sequence[Scene], *, held: bool, seconds: float) -> None:
        """The last line."""
        checks = [check for scene in scenes for check in scene.checks]
        kept = sum(check.held for check in checks)
        verdict = "[green]everything held[/]" if held else "[red]something did not hold[/]"
        self._console.print(f"\n{verdict}: {kept} of {len(checks)} checks, {seconds:.1f} s")

    def _show_check(self, check: Check) -> None:
        for command in check.commands:
            self._console.print(f"  [cyan]$[/] [dim]{_plain(short(command))}[/]")
        mark = "[green]✓[/]" if check.held else "[red]✗[/]"
        wanted = "" if check.held else f"   [red]expected {_plain(check.expected)}[/]"
        self._console.print(f"  {mark} {_plain(check.title)}: [bold]{_plain(check.said)}[/]{wanted}")


def _hops(records: Sequence[Record]) -> Table:
    title = f"as recorded by each callee (spiffe://{TRUST_DOMAIN} left out)"
    table = Table(box=SIMPLE, pad_edge=False, title=title, title_justify="left", title_style="dim")
    for name in ("hop", "subject", "act chain", "audience and operation", "scope"):
        table.add_column(name, overflow="fold")
    for number, record in enumerate(records, 1):
        chain = "\n← ".join(record.get("chain") or ())
        scope = "\n".join(record.get("scope") or ())
        asked = f"{record.get('audience')}\n{record.get('op')}"
        cells = (record.get("subject"), chain, asked, scope)
        table.add_row(str(number), *(_plain(short(str(cell))) for cell in cells))
    return table


def _selected(record: Record) -> Record:
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
