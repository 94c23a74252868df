"""``sidecar demo``: three hops, three tokens, no impersonation, shown in one terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.dev.curl import ToolError, require_tools
from sidecar.dev.mesh import Mesh, MeshError
from sidecar.dev.mesh_settings import TRUST_DOMAIN
from sidecar.dev.scenes import Demo, Record, Scene

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PREFIX: Final = f"spiffe://{TRUST_DOMAIN}"
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
    "status",
)


def run(arguments: argparse.Namespace) -> int:
    """Bring the mesh up, play the scenes, take it down. 0 only if everything held."""
    try:
        require_tools()
        with tempfile.TemporaryDirectory(prefix="sidecar-", ignore_cleanup_errors=True) as folder:
            return _play(Path(folder), as_json=arguments.json, keep=arguments.keep)
    except (MeshError, ToolError) as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 1


def _play(folder: Path, *, as_json: bool, keep: bool) -> int:
    started = time.monotonic()
    if not as_json:
        _console().print("[dim]bringing up 12 processes on loopback …[/]")
    with Mesh(folder) as mesh:
        up_s = time.monotonic() - started
        demo = Demo(mesh)
        scenes: list[Scene] = []
        for scene in demo.play():
            scenes.append(scene)
            if not as_json:
                _show(scene, first=len(scenes) == 1)
        held = all(check.held for scene in scenes for check in scene.checks)
        seconds = time.monotonic() - started
        if as_json:
            _print_json(scenes, held=held, up_s=up_s, seconds=seconds, try_yourself=demo.try_yourself() if keep else ())
        else:
            _sum_up(scenes, held=held, seconds=seconds)
        if keep:
            _stay(demo.try_yourself(), as_json=as_json)
    return 0 if held else 1


def _stay(commands: Sequence[str], *, as_json: bool) -> None:
    if not as_json:
        console = _console()
        console.print("\n[bold]The mesh is kept.[/] Try it from another terminal; Ctrl-C ends it.\n")
        for command in commands:
            print(f"  {command}")  # noqa: T201 - exactly as it is to be copied
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def _print_json(
    scenes: Sequence[Scene], *, held: bool, up_s: float, seconds: float, try_yourself: Sequence[str]
) -> None:
    document = {
        "held": held,
        "up_s": round(up_s, 2),
        "seconds": round(seconds, 2),
        "scenes": [asdict(scene) for scene in scenes],
        "try": list(try_yourself),
    }
    print(json.dumps(document, indent=2))  # noqa: T201


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _show(scene: Scene, *, first: bool) -> None:
    console = _console()
    console.print(f"\n[bold]{scene.title}[/]")
    console.print(f"[dim]{scene.story}[/]")
    if first:
        console.print(_hops(scene.records))
    for check in scene.checks:
        for command in check.commands:
            console.print(f"  [cyan]$[/] {_plain(command)}")
        mark = "[green]✓[/]" if check.held else "[red]✗[/]"
        wanted = "" if check.held else f"   [red]expected {check.expected}[/]"
        console.print(f"  {mark} {check.title}: [bold]{_plain(check.said)}[/]{wanted}")
    if not first:
        for record in scene.records:
            console.print(f"  [dim]record  {_plain(_short(json.dumps(_selected(record), ensure_ascii=False)))}[/]")


def _hops(records: Sequence[Record]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        box=SIMPLE,
        pad_edge=False,
        title=f"as recorded by each callee ({_PREFIX} left out)",
        title_justify="left",
        title_style="dim",
    )
    for name in ("hop", "subject", "actor", "act chain", "audience", "scope"):
        table.add_column(name, overflow="fold")
    for number, record in enumerate(records, 1):
        chain = "\n← ".join(record["chain"] or ())
        cells = (record["subject"], record["actor"], chain, record["audience"], "\n".join(record["scope"] or ()))
        table.add_row(str(number), *(_plain(_short(str(cell))) for cell in cells))
    return table


def _sum_up(scenes: Sequence[Scene], *, held: bool, seconds: float) -> None:
    checks = [check for scene in scenes for check in scene.checks]
    kept = sum(check.held for check in checks)
    verdict = "[green]everything held[/]" if held else "[red]something did not hold[/]"
    _console().print(f"\n{verdict}: {kept} of {len(checks)} checks, {seconds:.1f} s")


def _selected(record: Record) -> Record:
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}


def _short(text: str) -> str:
    return text.replace(_PREFIX, "")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
