"""Settings files and environment variables, made into every room's settings. No room imports this one.

The validation library and the models are imported by the functions that need them: a running sidecar loads settings in
a child process (``loader``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.settings import InboundSettings, OutboundSettings, RecordSettings, SidecarSettings
from sidecar.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sidecar.config.sts_settings import TokenServiceSettings

__all__ = [
    "Checked",
    "InboundSettings",
    "OutboundSettings",
    "RecordSettings",
    "SidecarSettings",
    "check",
    "json_schema",
    "load_sidecar",
    "load_sts",
]


def load_sidecar(path: Path, environ: Mapping[str, str], platform: Path | None = None) -> SidecarSettings:
    """Load the settings of one sidecar from its file and the environment, below the ceiling of the ``platform`` file.

    Raises:
        ConfigError: every problem, each with its field and its cure.
    """
    from sidecar.config.sidecar_file import load_sidecar as load

    return load(path, environ, platform)


def load_sts(path: Path, environ: Mapping[str, str]) -> TokenServiceSettings:
    """Load the settings of one token service from its file and the environment.

    Raises:
        ConfigError: every problem, each with its field and its cure.
    """
    from sidecar.config.sts_file import load_sts as load

    return load(path, environ)


class Checked(NamedTuple):
    """The result of a check: ``problems`` make a settings file unusable, ``notes`` only tell what may surprise."""

    problems: list[Problem]
    notes: list[Problem]


def check(path: Path, environ: Mapping[str, str], *, sts: bool = False, platform: Path | None = None) -> Checked:
    """Find every problem of a settings file; it can be used if there is none. Notes need a usable file."""
    try:
        if sts and platform is not None:
            return Checked([Problem("--platform", "is no ceiling of a token service", "leave it out, or --sts")], [])
        if sts:
            _check_keys(load_sts(path, environ).key_directory)
            return Checked([], [])
        from sidecar.config.notes import sidecar_notes

        return Checked([], list(sidecar_notes(load_sidecar(path, environ, platform))))
    except ConfigError as error:
        return Checked(list(error.problems), [])


def _check_keys(directory: Path | None) -> None:
    """Check the signing keys if they are on this machine; settings may be checked on another."""
    from sidecar.sts.key_files import load_schedule

    if directory is not None and directory.exists():
        load_schedule(directory, int(time.time()))


def json_schema(*, sts: bool = False, platform: bool = False) -> dict[str, object]:
    """Return the JSON Schema of a sidecar's (or token service's) settings file, or of a platform file, for editors."""
    if platform:
        from sidecar.config.platform_model import PlatformFile

        schema = PlatformFile.model_json_schema()
    elif sts:
        from sidecar.config.sts_model import StsFile

        schema = StsFile.model_json_schema()
    else:
        from sidecar.config.sidecar_model import SidecarFile

        schema = SidecarFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
