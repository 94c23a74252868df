"""Short form of the demo's output: the story in 60 lines of 80 columns, without commands, headers and records."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from sidecar_dev.acts import LAST
from sidecar_dev.attacks import ATTACKS
from sidecar_dev.stage import Check, Scene, count

WIDTH: Final = 80
_TITLE: Final = 41
_SERVED: Final = "200"


class Story:
    """Prints each scene as a paragraph and its findings, and the attacks as one table."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._act = ""
        self._twins: list[Check] = []

    def say(self, text: str) -> None:
        """Print one dim paragraph."""
        self._print(textwrap.fill(text, WIDTH), "dim")

    def copy(self, command: str) -> None:
        """Print a command exactly as it is to be copied."""
        self._print(command)

    def show(self, scene: Scene) -> None:
        """Print one scene."""
        if scene.act != self._act:
            self._end_attacks()
            self._act = scene.act
            self._print("")
            self._print(f" {scene.act} ", "bold reverse")
        if scene.act == ATTACKS:
            self._show_attacks(scene.checks)
            return
        title = scene.title if scene.title.endswith("?") else f"{scene.title}:"
        paragraph = Text(textwrap.fill(f"{title} {scene.story}", WIDTH), style="dim")
        paragraph.stylize("not dim bold", 0, len(title))
        self._console.print(paragraph)
        for line in scene.lines if scene.act == LAST else ():
            self._print(f"    {line}")
        for check in scene.checks:
            if check.said != _SERVED or not check.held:
                self._show_check(check)

    def sum_up(self, scenes: Sequence[Scene], *, held: bool, seconds: float) -> None:
        """Print the last lines."""
        self._end_attacks()
        kept, all_of_them = count(scenes)
        verdict = ("everything held", "green") if held else ("something did not hold", "red")
        self._console.print(Text.assemble("\n", verdict, f": {kept} of {all_of_them} checks, {seconds:.1f} s"))

    def _show_attacks(self, checks: Sequence[Check]) -> None:
        for check in checks:
            if check.expected == _SERVED:
                self._twins.append(check)
            if check.expected != _SERVED or not check.held:
                self._show_check(check)

    def _end_attacks(self) -> None:
        if self._twins:
            served = sum(check.held for check in self._twins)
            text = f"{served} of {len(self._twins)} served"
            self._show_check(Check("the same calls, made lawfully", (), text, text, served == len(self._twins)))
            self._twins = []

    def _show_check(self, check: Check) -> None:
        mark = ("✓", "green") if check.held else ("✗", "red")
        line = Text.assemble("  ", mark, f" {check.title:{_TITLE}} ", (check.said, "bold"))
        if not check.held:
            line.append(f"\n    expected: {check.expected}", style="red")
        self._console.print(line)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))
