"""``sidecar demo``: the same incident twice, without and with sidecars, shown in one terminal.

Act 1: agents pass alice's token along, a poisoned document makes one of them export the CRM, and every log says alice
did it. Act 2: the same programs beside sidecars; then the attacker tries everything; then the evidence is put together.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sidecar_dev.acts import POISON, QUESTION, act_one, act_two, evidence
from sidecar_dev.attacks import attacks
from sidecar_dev.curl import ToolError, require_tools
from sidecar_dev.mesh import Mesh, MeshError
from sidecar_dev.mesh_settings import CLIENT_ID, LOGIN_SCOPE
from sidecar_dev.screen import Screen
from sidecar_dev.stage import Scene, Stage
from sidecar_dev.story import Story


def run(arguments: argparse.Namespace) -> int:
    """Start the mesh, play the scenes, stop it. Exit code 0 only if every check held."""
    try:
        require_tools()
        with tempfile.TemporaryDirectory(prefix="sidecar-", ignore_cleanup_errors=True) as folder:
            long = arguments.verbose
            screen = None if arguments.json else Screen(Path(folder)) if long else Story()
            return _play(Path(folder), screen=screen, keep=arguments.keep)
    except (MeshError, ToolError) as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 1


def _play(folder: Path, *, screen: Screen | Story | None, keep: bool) -> int:
    started = time.monotonic()
    if screen is not None:
        screen.say("Starting the mesh on loopback: four agents, each twice, and their sidecars …")
    with Mesh(folder) as mesh:
        stage = Stage(mesh)
        spent = {"up": time.monotonic() - started}
        scenes: list[Scene] = []
        for act in (act_one, act_two, attacks, evidence):
            began = time.monotonic()
            scenes += _render(act(stage), screen)
            spent[act.__name__] = time.monotonic() - began
        held = all(check.held for scene in scenes for check in scene.checks)
        if screen is not None:
            screen.sum_up(scenes, held=held, seconds=time.monotonic() - started)
            if not keep:
                screen.say("--verbose shows each command and record; --keep leaves the mesh running.")
        else:
            _print_json(scenes, held=held, spent=spent, kept=_keep(stage) if keep else None)
        if keep:
            _stay(stage, screen)
    return 0 if held else 1


def _render(scenes: Iterator[Scene], screen: Screen | Story | None) -> Iterator[Scene]:
    for scene in scenes:
        if screen is not None:
            screen.show(scene)
        yield scene


def _stay(stage: Stage, screen: Screen | Story | None) -> None:
    """Leave the mesh running until Ctrl-C or SIGTERM."""
    if screen is not None:
        kept = _keep(stage)
        screen.say("\nThe mesh is kept; Ctrl-C ends it. The token that the CRM was given last:")
        screen.copy(json.dumps(kept["token"], indent=2))
        screen.say(f"Its issuer's keys: {kept['jwks']}")
        screen.say("Try it from another terminal:")
        for command in kept["commands"]:
            screen.copy(f"  {command}")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def _keep(stage: Stage) -> dict[str, Any]:
    """Return commands to try while the mesh is kept."""
    places = stage.places
    token = stage.seen("crm").get("delegation-token", "..")
    login = f"grant_type=password&username=alice&client_id={CLIENT_ID}&scope={LOGIN_SCOPE}"
    pick = r"""sed 's/.*"access_token": *"\([^"]*\)".*/\1/'"""
    ask = f'curl -s http://{places.at("front")}/ask -H "Authorization: Bearer $LOGIN" -d'
    sts = f"https://sts.internal:{places.ports['sts']}"
    svid = "--cert svids/writer/svid.pem --key svids/writer/svid_key.pem --cacert svids/writer/bundle.pem"
    return {
        "folder": str(places.directory),
        "front": f"http://{places.at('front')}",
        "login": places.login,
        "jwks": f"{places.sts}/jwks",
        "token": {"header": _part(token, 0), "claims": _part(token, 1)},
        "commands": [
            f"cd {places.directory}",
            f"LOGIN=$(curl -s {places.login}/token -d '{login}' | {pick})",
            f"{ask} '{json.dumps(QUESTION)}'",
            f"{ask} '{json.dumps(POISON)}'",
            f"curl -s {svid} --connect-to sts.internal::127.0.0.1:{places.ports['sts']} {sts}/jwks",
            f"curl -s http://{places.at('crm-probe')}/metrics | grep ^sidecar_operations_total",
            "tail -f writer.records",
        ],
    }


def _part(token: str, number: int) -> object:
    part = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) or "null")


def _print_json(scenes: Sequence[Scene], *, held: bool, spent: dict[str, float], kept: dict[str, Any] | None) -> None:
    document = {
        "held": held,
        "seconds": {name: round(seconds, 2) for name, seconds in spent.items()},
        "scenes": [asdict(scene) for scene in scenes],
        "kept": kept,
    }
    print(json.dumps(document, indent=2))  # noqa: T201
    sys.stdout.flush()
