"""Settings of a token service, validated and frozen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from delegation_core.errors import Problem
from sidecar.config.record_settings import RecordSettings
from sidecar.identity.issuer import JwksSettings
from sidecar.identity.source_factory import IdentitySettings
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import RateSettings
from sidecar.sts.schedule import KeyLags
from sidecar.sts.server import StsSettings

if TYPE_CHECKING:  # loaded only where a feature is used: sidecar/sts/features.py
    from sidecar.sts.logout_endpoint import EventSettings
    from sidecar.sts.revocations import RevocationSettings


def _kept(revocation: RevocationSettings | None) -> object:
    """Return the part of the revocation settings that needs a restart: all but operators and replicas."""
    return None if revocation is None else replace(revocation, operators={}, replicas=())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServiceSettings:
    """All settings of one token service.

    ``login_keys`` are the key sets of user issuers and foreign issuers. ``key_directory`` None means a signing key
    generated at the start: replicas do not share it, and a restart loses it.
    """

    identity: IdentitySettings
    server: StsSettings
    policy: StsPolicy
    login_keys: tuple[JwksSettings, ...]
    key_directory: Path | None
    records: RecordSettings
    rate: RateSettings
    actor_rate: RateSettings = field(default_factory=lambda: RateSettings(burst=1000, per_s=100.0))
    key_lags: KeyLags = field(default_factory=KeyLags)
    introspection: RateSettings | None = None
    revocation: RevocationSettings | None = None
    events: EventSettings | None = None
    included: tuple[tuple[Path, Hashable], ...] = ()  # each path that is included, with its fingerprint
    used: Mapping[str, int] = field(default_factory=dict)  # counts by the name of their bound

    def needs_restart(self, fresh: TokenServiceSettings) -> list[Problem]:
        """Return a problem for each change in ``fresh`` that needs a restart.

        Policy changes take effect without one, except for ``issuer``. A login or foreign issuer
        needs a restart only if its key settings are new.
        """
        kept = {
            "issuer": (self.policy.issuer, fresh.policy.issuer),
            "identity": (self.identity, fresh.identity),
            "listen": (replace(self.server, keys_max_age_s=fresh.server.keys_max_age_s), fresh.server),
            "keys": ((self.key_directory, self.key_lags), (fresh.key_directory, fresh.key_lags)),
            "records": (self.records, fresh.records),
            "exchange_rate": (self.rate, fresh.rate),
            "actor_rate": (self.actor_rate, fresh.actor_rate),
            "introspection": (self.introspection, fresh.introspection),
            "revocation": (_kept(self.revocation), _kept(fresh.revocation)),
            "revocation.events": (self.events, fresh.events),
        }
        fields = [field for field, (old, new) in kept.items() if old != new]
        new = {keys.issuer for keys in set(fresh.login_keys) - set(self.login_keys)}
        of_kinds = {"login_issuers": fresh.policy.login_issuers, "foreign_issuers": fresh.policy.foreign_issuers}
        fields += [field for field, issuers in of_kinds.items() if not new.isdisjoint(issuers)]
        return [Problem(field, "cannot change while the service runs", "restart it") for field in fields]
