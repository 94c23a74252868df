"""``sidecar run``: loads settings, then becomes one sidecar or the parent of several workers."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from delegation_core.errors import ConfigError, Problem
from sidecar.config.loader import Loaded, SettingsFiles, load_at_start
from sidecar.config.settings import SidecarSettings
from sidecar.engine import engine_of
from sidecar.process import run_until_signal
from sidecar.start import refuse_settings, require_address_space


def run(arguments: argparse.Namespace) -> int:
    """Run ``sidecar run`` until SIGTERM or SIGINT; return the exit code. SIGHUP reloads the settings."""
    files = SettingsFiles("sidecar", Path(arguments.config), arguments.platform and Path(arguments.platform))
    try:
        loaded: Loaded[SidecarSettings] = load_at_start(files, os.environ)
        _require_one_process(loaded.settings, arguments.workers)
        engine_of(loaded.settings.engine)  # raises if the engine is not installed
        require_address_space(loaded.settings.identity)
    except ConfigError as error:
        return refuse_settings(arguments.config, error)
    if arguments.workers > 1:
        from sidecar.workers.run import (
            run_workers,
        )  # here: a single process needs no workers, and a parent does not serve

        return run_until_signal(partial(run_workers, loaded, arguments.workers))
    from sidecar.one_process import run_sidecar

    return run_until_signal(partial(run_sidecar, loaded))


def _require_one_process(settings: SidecarSettings, workers: int) -> None:
    """Check that the settings allow ``workers`` processes.

    Raises:
        ConfigError: there are several, and the settings need logins, tasks or subjects in one process.
    """
    by_login = any(route.token == "login" for route in settings.outbound_routes.routes)  # noqa: S105 - a kind
    if workers > 1 and by_login:
        wrong = f"is login, whose users come back to the process that they left, and --workers is {workers}"
        raise ConfigError([Problem("outbound.routes.token", wrong, "start with --workers 1")])
    if workers > 1 and any(route.a2a.strict_tasks for route in settings.inbound_routes.routes):
        wrong = f"is strict, which needs every task to be known in one process, and --workers is {workers}"
        raise ConfigError([Problem("inbound.routes.a2a.tasks", wrong, "start with --workers 1, or remove it")])
    if workers > 1 and settings.inbound is not None and settings.inbound.one_subject:
        wrong = f"holds in one process, and --workers is {workers}"
        raise ConfigError([Problem("inbound.subjects_at_once", wrong, "start with --workers 1, or remove it")])
