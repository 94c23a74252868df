"""What a token service's settings file becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sidecar.config.settings import RecordSettings
from sidecar.identity.issuer import JwksSettings
from sidecar.identity.workload_api import WorkloadApiSettings
from sidecar.sts.policy import StsPolicy
from sidecar.sts.server import StsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServiceSettings:
    """Everything one token service is told.

    ``login_keys`` are the user issuers' key sets. ``key_directory`` None means a signing key made at the start, which
    no replica shares and no restart keeps.
    """

    identity: WorkloadApiSettings
    server: StsSettings
    policy: StsPolicy
    login_keys: tuple[JwksSettings, ...]
    key_directory: Path | None
    records: RecordSettings
