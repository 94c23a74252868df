from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.errors import ConfigError, Problem
from delegation_core.revocation import Kind
from sidecar.config.loader import Loaded, SettingsFiles
from sidecar.sts.revocations import Register, RevocationSettings
from sidecar.sts_reload import StsReload
from tests.fakes.sts import Mesh
from tests.sts.test_revocations import order


class Reloading:
    """A token service with a register, and the reload of a policy whose tokens live a second less."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: Any = None) -> None:
        self.mesh = Mesh()
        self.register = Register(RevocationSettings(), self.mesh.log, clock=lambda: self.mesh.now)
        self.register.load()
        self.mesh.service.register = self.register
        self.before = self.mesh.service.policy
        self.fresh = replace(self.before, token_life_s=self.before.token_life_s - 1)
        self.operators = RevocationSettings(replicas=("https://sts.example",))
        running: Any = SimpleNamespace(key_directory=None, needs_restart=lambda _fresh: [])
        files = files or SimpleNamespace(fingerprint=lambda: 1)
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
    monkeypatch.setattr("delegation_core.revocations_kept.MAX_LISTED", 0)
    with pytest.raises(ConfigError, match="foreign_issuers"):
        await reloading.policy.reload()
    assert reloading.mesh.service.policy is reloading.before
    assert reloading.register.settings is not reloading.operators


async def test_a_reload_follows_the_files_that_its_settings_include_from_then_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reloading = Reloading(monkeypatch)
    included = tmp_path / "rules.yaml"
    included.write_text("rules: []")
    files = SettingsFiles("sts", tmp_path / "sts.yaml", included=(included,))

    async def load(_files: object, _environ: object) -> Any:
        settings = SimpleNamespace(policy=reloading.fresh, revocation=reloading.operators, used={"rules": 9000})
        return Loaded(settings, files, files.fingerprint())

    monkeypatch.setattr("sidecar.sts_reload.load_again", load)
    await reloading.policy.reload()
    assert reloading.policy.last == reloading.policy.fingerprint()
    assert reloading.mesh.service.log.metrics.settings_used == {"rules": 0.9}
    included.write_text("rules: [] # changed")
    assert reloading.policy.last != reloading.policy.fingerprint()


async def test_a_refused_reload_follows_what_its_settings_include(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reloading = Reloading(monkeypatch, SettingsFiles("sts", tmp_path / "sts.yaml"))
    included = tmp_path / "rules.yaml"

    async def refuse(_files: object, _environ: object) -> Any:
        raise ConfigError([Problem("rules", "is wrong", "mend it")], followed=[(included, 1)])

    monkeypatch.setattr("sidecar.sts_reload.load_again", refuse)
    with pytest.raises(ConfigError, match="is wrong"):
        await reloading.policy.reload()
    before = reloading.policy.fingerprint()
    included.write_text("rules: []")
    assert reloading.policy.fingerprint() != before
