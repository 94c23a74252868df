"""Settings files and environment variables, made into every room's settings. No room imports this one.

The path of a file, in order:

- ``loader``: the child process that does all of this, at the start and for a reload; ``handover``: its answer
- ``document``: YAML and environment variables, into plain objects
- ``validation``: the schema, then cross-field checks; ``Problem`` for each error
- schema: ``sidecar_model`` with a file for each large section (``inbound_model``, ``outbound_model`` and so on),
  ``sts_model``, ``platform_file``, with ``sections`` that they share, ``limits`` and ``field_types``; the meaning of a
  key is the description of its field
- checks: ``sidecar_checks`` between sections; ``inbound_checks``, ``outbound_checks`` and the like hold the checks of
  one section and its builders; ``platform_checks`` against the platform's ceiling
- features: ``sidecar/features/NAME/settings.py`` has the sections, checks and builder of one feature
- builders: ``sidecar_file``, with ``issuers``, ``profiles``, ``endpoints``, ``identity``, ``addresses``
- result: ``settings``, ``sts_settings``, with ``record_settings`` that they share

``docs`` writes the page of settings from the schema. Functions import the validation library and the models when they
are called, so that a serving process never holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.config.settings import SidecarSettings
    from sidecar.config.sts_settings import TokenServiceSettings

__all__ = ["json_schema", "load_sidecar", "load_sts"]


def load_sidecar(path: Path, environ: Mapping[str, str], platform: Path | None = None) -> SidecarSettings:
    """Load the settings of one sidecar from its file and the environment, below the ceiling of the ``platform`` file.

    Raises:
        ConfigError: every problem, each with its field and its fix.
    """
    from sidecar.config.sidecar_file import load_sidecar as load

    return load(path, environ, platform)


def load_sts(path: Path, environ: Mapping[str, str]) -> TokenServiceSettings:
    """Load the settings of one token service from its file and the environment.

    Raises:
        ConfigError: every problem, each with its field and its fix.
    """
    from sidecar.config.sts_file import load_sts as load

    return load(path, environ)


def json_schema(*, sts: bool = False, platform: bool = False) -> dict[str, object]:
    """Return the JSON Schema of a sidecar's (or token service's) settings file, or of a platform file, for editors."""
    if platform:
        from sidecar.config.platform_file import PlatformFile

        schema = PlatformFile.model_json_schema()
    elif sts:
        from sidecar.config.sts_model import StsFile

        schema = StsFile.model_json_schema()
    else:
        from sidecar.config.sidecar_model import SidecarFile

        schema = SidecarFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
