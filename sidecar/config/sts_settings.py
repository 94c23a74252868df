"""What a token service's settings file becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sidecar.config.settings import RecordSettings
from sidecar.errors import Problem
from sidecar.identity.issuer import JwksSettings
from sidecar.identity.source_factory import IdentitySettings
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import RateSettings
from sidecar.sts.server import StsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServiceSettings:
    """Everything one token service is told.

    ``login_keys`` are the user issuers' key sets. ``key_directory`` None means a signing key made at the start, which
    no replica shares and no restart keeps.
    """

    identity: IdentitySettings
    server: StsSettings
    policy: StsPolicy
    login_keys: tuple[JwksSettings, ...]
    key_directory: Path | None
    records: RecordSettings
    rate: RateSettings

    def needs_restart(self, fresh: TokenServiceSettings) -> list[Problem]:
        """What of ``fresh`` cannot take the place of these settings in a process that runs. A policy can.

        A login issuer whose keys are followed already may come and go; another one may not.
        """
        kept = {
            "issuer": (self.policy.issuer, fresh.policy.issuer),
            "identity": (self.identity, fresh.identity),
            "listen": (self.server, fresh.server),
            "keys": (self.key_directory, fresh.key_directory),
            "records": (self.records, fresh.records),
            "exchange_rate": (self.rate, fresh.rate),
        }
        fields = [field for field, (old, new) in kept.items() if old != new]
        if not set(fresh.login_keys) <= set(self.login_keys):
            fields.append("login_issuers")
        return [Problem(field, "cannot change while the service runs", "restart it") for field in fields]
