from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.config.loader import Loaded
from sidecar.delegation.revocation import Kind
from sidecar.errors import ConfigError
from sidecar.sts.revocations import Register, RevocationSettings
from sidecar.sts_reload import StsReload
from tests.fakes.sts import Mesh
from tests.sts.test_revocations import order


class Reloading:
    """A token service with a register, and the reload of a policy whose tokens live a second less."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mesh = Mesh()
        self.register = Register(RevocationSettings(), self.mesh.log, clock=lambda: self.mesh.now)
        self.register.load()
        self.mesh.service.register = self.register
        self.before = self.mesh.service.policy
        self.fresh = replace(self.before, token_life_s=self.before.token_life_s - 1)
        self.operators = RevocationSettings(replicas=("https://sts.example",))
        running: Any = SimpleNamespace(key_directory=None, needs_restart=lambda _fresh: [])
        files: Any = SimpleNamespace(fingerprint=lambda: 1)
        (self.policy,) = StsReload(Loaded(running, files, 1), {}).watched(self.mesh.service)
        monkeypatch.setattr("sidecar.sts_reload.load_again", self._load)

    async def _load(self, files: Any, _environ: object) -> Any:
        return Loaded(SimpleNamespace(policy=self.fresh, revocation=self.operators, used={"rules": 1}), files, 1)


def never(_steps: object) -> object:
    raise AssertionError("a call waited for all revocations")


async def test_a_reload_makes_what_is_revoked_before_it_puts_its_policy_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reloading = Reloading(monkeypatch)
    await reloading.register.add(order(Kind.TXN, "t"))
    await reloading.policy.reload()
    assert reloading.mesh.service.policy is reloading.fresh
    assert reloading.register.settings is reloading.operators
    monkeypatch.setattr("sidecar.sts.revocations.at_once", never)
    assert reloading.register.revocations(reloading.fresh).ttl_s == reloading.fresh.token_life_s


async def test_a_policy_under_which_no_reader_would_take_the_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reloading = Reloading(monkeypatch)
    await reloading.register.add(order(Kind.TXN, "t"))
    monkeypatch.setattr("sidecar.delegation.revocation.MAX_LISTED", 0)
    with pytest.raises(ConfigError, match="foreign_issuers"):
        await reloading.policy.reload()
    assert reloading.mesh.service.policy is reloading.before
    assert reloading.register.settings is not reloading.operators
