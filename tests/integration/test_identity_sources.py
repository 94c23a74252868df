"""A sidecar works the same on each kind of identity source: it serves, is renewed, is cut off and recovers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from sidecar.assembly.server import assemble
from sidecar.config.settings import SidecarSettings
from sidecar.identity.files import FileSettings
from sidecar.identity.source_factory import IdentitySettings
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.proxy.listening.server import Server
from tests.identity import supplies
from tests.integration.world import PARTNER, PLANNER, WRITER, Sidecar, World, bearer, calling, mint, until

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]


class Life(Protocol):
    """Actions of a supplier that grants and withdraws identities."""

    def settings(self, configured: IdentitySettings) -> IdentitySettings: ...

    def grant(self, sidecar: Sidecar) -> None: ...

    def renew(self, sidecar: Sidecar) -> None: ...

    def withdraw(self, sidecar: Sidecar) -> None: ...


class OnApi:
    """Registrations at a development Workload API; ``py_spiffe`` selects the other client."""

    def __init__(self, *, py_spiffe: bool) -> None:
        self._py_spiffe = py_spiffe
        self._ttl_s = 3000

    def settings(self, configured: IdentitySettings) -> IdentitySettings:
        assert isinstance(configured, WorkloadApiSettings)
        return replace(configured, py_spiffe=self._py_spiffe, min_backoff_s=0.02, max_backoff_s=0.1)

    def grant(self, sidecar: Sidecar) -> None:
        sidecar.api.registry.replace_entries(self._entries)

    def renew(self, sidecar: Sidecar) -> None:
        (entry,) = sidecar.api.registry.entries
        self._ttl_s += 1
        sidecar.api.registry.replace_entries([replace(entry, ttl_s=self._ttl_s)])

    def withdraw(self, sidecar: Sidecar) -> None:
        self._entries = sidecar.api.registry.entries
        sidecar.api.registry.replace_entries([])


class InFiles:
    """Files that are written by renaming, and removed."""

    def __init__(self, folder: Path, world: World) -> None:
        self._world = world
        names = ("tls.crt", "tls.key", "ca.crt", "partner.crt")
        self._certificate, self._key, self._bundle, self._partner = (folder / name for name in names)
        self._write()

    def settings(self, configured: IdentitySettings) -> IdentitySettings:
        return FileSettings(
            certificate=self._certificate,
            key=self._key,
            bundle=self._bundle,
            federated={PARTNER: self._partner},
            look_every_s=0.05,
            settle_s=0.02,
        )

    def grant(self, sidecar: Sidecar) -> None:
        self._write()

    def renew(self, sidecar: Sidecar) -> None:
        self._write()

    def withdraw(self, sidecar: Sidecar) -> None:
        self._certificate.unlink()

    def _write(self) -> None:
        svid = self._world.acme.issue_x509(WRITER)
        for path, content, mode in (
            (self._certificate, svid.chain_pem, supplies.OPEN_MODE),
            (self._key, svid.key_pem, supplies.PRIVATE_MODE),
            (self._bundle, self._world.acme.bundle_pem(), supplies.OPEN_MODE),
            (self._partner, self._world.partner.bundle_pem(), supplies.OPEN_MODE),
        ):
            supplies.replace(path, content, mode)


LIVES: dict[str, Callable[[Path, World], Life]] = {
    "workload_api": lambda _folder, _world: OnApi(py_spiffe=False),
    "files": InFiles,
    "py_spiffe": lambda _folder, _world: OnApi(py_spiffe=True),
}


@pytest.mark.parametrize("kind", LIVES)
async def test_a_sidecar_lives_on_any_source(world: World, tmp_path: Path, kind: str) -> None:
    life = LIVES[kind](tmp_path, world)

    def assembled(settings: SidecarSettings) -> Server:
        return assemble(replace(settings, identity=life.settings(settings.identity)))

    sidecar = await world.sidecar(WRITER, world.settings(), assembled_by=assembled)
    planner = calling(await world.source(PLANNER), WRITER)

    async def call() -> int:
        return (await world.call(sidecar.inbound, planner, headers=bearer(mint()))).status

    def rotated(number: int) -> bool:
        return len(sidecar.records("identity.rotated")) >= number

    assert await call() == 200
    for number in range(2, 5):
        life.renew(sidecar)
        await until(lambda n=number: rotated(n))  # type: ignore[misc]
        assert await call() == 200
    async with world.kept(sidecar.inbound, planner) as kept:
        assert (await kept.ask(headers=bearer(mint()))).status == 200
        life.withdraw(sidecar)
        await until(lambda: bool(sidecar.records("identity.lost")))
        refused = await kept.ask(headers=bearer(mint()))
        assert (refused.status, refused.reason) == (503, "not_ready")
        assert await world.hears_nothing(sidecar.inbound, planner)
        life.grant(sidecar)
        await until(lambda: not sidecar.server.missing())
        assert await call() == 200
