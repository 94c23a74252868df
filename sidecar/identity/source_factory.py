"""Makes the identity source that the settings name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from sidecar.identity.files import FileSettings, FileSource
from sidecar.identity.source import IdentitySource

if TYPE_CHECKING:
    from sidecar.identity.workload_settings import WorkloadApiSettings

IdentitySettings: TypeAlias = "WorkloadApiSettings | FileSettings"


def source_of(settings: IdentitySettings, *, jwt_bundles: bool = False) -> IdentitySource:
    """Make the source, not yet running. ``jwt_bundles``: follow JWT bundles; ignored for files.

    Raises:
        ImportError: py-spiffe is configured and not installed.
    """
    if isinstance(settings, FileSettings):
        return FileSource(settings)
    settings = replace(settings, jwt_bundles=jwt_bundles)
    if settings.py_spiffe:
        from sidecar.identity.py_spiffe import PySpiffeSource  # an extra, which costs 22 MiB with its threads

        return PySpiffeSource(settings)
    from sidecar.identity.workload_api import (
        WorkloadApiSource,
    )  # loads gRPC, 4 MiB that a reader of files does not need

    return WorkloadApiSource(settings)
