"""Faults that only files have: half-written, missing, readable by others. The test controls the waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.files import LAYOUTS, FileSettings, FileSource
from sidecar.identity.source import State
from tests.identity.pem_cells import CELLS, OURS
from tests.identity.shapes import HOUR, NOW, Issued, authority, leaf
from tests.identity.supplies import AUDIENCE, pem_key_of, pem_of

A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT_A, ROOT_B = authority("root a"), authority("root b")
SELF = "spiffe://a.test/self"
CHANGED_S, LOOK_S = 0.2, 2.0


def own(number: int, kind: str = "p256") -> Issued:
    return leaf(ROOT_A, SELF, kind=kind, not_after=NOW + HOUR + number)


class Looks:
    """A source that checks on demand. Each check ends in a wait whose length shows its result."""

    def __init__(self, settings: FileSettings) -> None:
        self._waits: asyncio.Queue[float] = asyncio.Queue()
        self._go: asyncio.Queue[None] = asyncio.Queue()
        self.source = FileSource(settings, clock=lambda: float(NOW), pause=self._pause)

    async def _pause(self, seconds: float) -> None:
        self._waits.put_nowait(seconds)
        await self._go.get()

    async def first(self) -> float:
        return await asyncio.wait_for(self._waits.get(), 5)

    async def look(self, times: int = 1) -> float:
        wait_s = 0.0
        for _ in range(times):
            self._go.put_nowait(None)
            wait_s = await asyncio.wait_for(self._waits.get(), 5)
        return wait_s

    def number(self) -> int:
        """Return the number of the SVID in use; 0 is none."""
        current = self.source.current
        return 0 if current is None else current.svid.not_after - NOW - HOUR

    def state(self) -> State:
        return self.source.state


@asynccontextmanager
async def looking(settings: FileSettings) -> AsyncIterator[Looks]:
    looks = Looks(settings)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(looks.source.run())
        await looks.first()
        yield looks
        running.cancel()


def write(settings: FileSettings, issued: Issued) -> None:
    settings.certificate.write_bytes(pem_of(issued))
    settings.key.touch(mode=0o600)
    settings.key.write_bytes(pem_key_of(issued))
    settings.bundle.write_bytes(pem_of(ROOT_A))


@pytest.fixture(params=LAYOUTS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> FileSettings:
    certificate, key, bundle = (tmp_path / name for name in LAYOUTS[request.param])
    settings = FileSettings(certificate=certificate, key=key, bundle=bundle)
    write(settings, own(1))
    return settings


async def test_a_change_is_believed_at_the_second_look(settings: FileSettings) -> None:
    async with looking(settings) as looks:
        assert looks.number() == 0
        assert await looks.look() == LOOK_S
        assert looks.number() == 1
        write(settings, own(2))
        assert await looks.look() == CHANGED_S
        assert looks.number() == 1
        assert await looks.look() == LOOK_S
        assert looks.number() == 2


async def test_a_writer_that_is_half_done_is_waited_for(settings: FileSettings) -> None:
    async with looking(settings) as looks:
        await looks.look()
        settings.certificate.write_bytes(pem_of(own(2, "rsa")))
        await looks.look()
        settings.key.write_bytes(b"")
        assert await looks.look() == CHANGED_S
        settings.key.write_bytes(pem_key_of(own(2, "rsa")))
        assert await looks.look(2) == LOOK_S
        assert looks.number() == 2
        assert looks.source.counts.discarded == 0


async def test_a_pair_that_stays_half_written_is_counted_once_and_the_last_good_one_serves(
    settings: FileSettings,
) -> None:
    async with looking(settings) as looks:
        await looks.look()
        settings.certificate.write_bytes(pem_of(own(2, "rsa")))
        await looks.look(5)
        assert looks.number() == 1
        assert looks.source.counts.discarded == 1
        assert "key" in str(looks.source.last_error)
        settings.key.write_bytes(pem_key_of(own(2, "rsa")))
        await looks.look(2)
        assert looks.number() == 2
        assert looks.source.last_error is None


def contents(issued: Issued, root: Issued) -> dict[str, bytes]:
    return {"certificate": pem_of(issued), "key": pem_key_of(issued), "bundle": pem_of(root)}


def spoil(settings: FileSettings, which: str, case: str) -> None:
    """Make one file what the cell says."""
    other = contents(leaf(ROOT_B, "spiffe://b.test/other", kind="rsa"), ROOT_B)[which]
    path: Path = getattr(settings, which)
    content = CELLS[case].of(path.read_bytes(), other)
    path.unlink() if content is None else path.write_bytes(content)


def mended(source: FileSource) -> bool:
    return source.unusable is None and source.last_error is None


def restore(settings: FileSettings, number: int) -> None:
    write(settings, own(number))


@pytest.mark.parametrize("which", OURS)
@pytest.mark.parametrize("case", CELLS)
async def test_at_the_start_each_cell_leaves_us_without_identity_until_it_is_mended(
    settings: FileSettings, which: str, case: str
) -> None:
    spoil(settings, which, case)
    async with looking(settings) as looks:
        assert looks.source.unusable is None
        await looks.look()
        assert (looks.number(), looks.state()) == (0, State.STARTING)
        assert (looks.source.unusable is None) == CELLS[case].waited_for
        assert looks.source.unusable in (None, looks.source.last_error)
        restore(settings, 1)
        await looks.look(2)
        assert (looks.number(), mended(looks.source)) == (1, True)


@pytest.mark.parametrize("which", OURS)
@pytest.mark.parametrize("case", CELLS)
async def test_in_a_rotation_each_cell_leaves_the_identity_in_use(
    settings: FileSettings, which: str, case: str
) -> None:
    async with looking(settings) as looks:
        await looks.look()
        spoil(settings, which, case)
        await looks.look(2)
        assert looks.number() == 1
        assert looks.source.last_error
        assert (looks.source.unusable is None) == CELLS[case].waited_for
        restore(settings, 2)
        await looks.look(2)
        assert (looks.number(), mended(looks.source)) == (2, True)


async def test_an_svid_that_is_not_valid_yet_is_waited_for_and_an_expired_one_is_not(settings: FileSettings) -> None:
    for not_before, not_after, waited_for in ((NOW + 5, NOW + HOUR, True), (NOW - HOUR, NOW - 5, False)):
        write(settings, leaf(ROOT_A, SELF, not_before=not_before, not_after=not_after))
        async with looking(settings) as looks:
            await looks.look()
            assert (looks.number(), looks.source.unusable is None) == (0, waited_for)


@pytest.mark.parametrize("which", range(3), ids=["certificate", "key", "bundle"])
async def test_a_missing_file_is_lost_at_first_and_withdrawn_at_the_next_look(
    settings: FileSettings, which: int
) -> None:
    path = settings.ours[which]
    content = path.read_bytes()
    async with looking(settings) as looks:
        await looks.look()
        path.unlink()
        await looks.look(2)
        assert (looks.number(), looks.state()) == (1, State.STALE)
        assert "is missing" in str(looks.source.last_error)
        await looks.look()
        assert (looks.number(), looks.state()) == (0, State.DENIED)
        assert f"{path} is missing" in str(looks.source.last_error)
        path.touch(mode=0o600)
        path.write_bytes(content)
        await looks.look(2)
        assert (looks.number(), looks.state()) == (1, State.READY)


async def test_a_file_that_was_away_for_a_moment_was_not_withdrawn(settings: FileSettings) -> None:
    async with looking(settings) as looks:
        await looks.look()
        identity = looks.source.current
        settings.bundle.rename(settings.bundle.with_suffix(".away"))
        await looks.look(2)
        assert looks.state() is State.STALE
        settings.bundle.with_suffix(".away").rename(settings.bundle)
        await looks.look(2)
        assert looks.state() is State.READY
        assert looks.source.current is identity
        assert looks.source.last_error is None
        settings.bundle.rename(settings.bundle.with_suffix(".away"))
        await looks.look(2)
        assert looks.state() is State.STALE  # the count starts over


async def test_a_file_that_cannot_be_read_is_no_withdrawal_however_long(settings: FileSettings) -> None:
    async with looking(settings) as looks:
        await looks.look()
        settings.certificate.unlink()
        settings.certificate.symlink_to(settings.certificate.name)
        await looks.look(5)
        assert (looks.number(), looks.state()) == (1, State.STALE)
        assert looks.source.counts.lost_connections == 1


async def test_a_key_that_others_can_read_is_not_used(settings: FileSettings) -> None:
    settings.key.chmod(0o644)
    async with looking(settings) as looks:
        await looks.look(5)
        assert (looks.number(), looks.state()) == (0, State.STARTING)
        assert "chmod 0600" in str(looks.source.last_error)
        settings.key.chmod(0o600)
        await looks.look(2)
        assert looks.number() == 1


async def test_a_federated_file_that_stays_away_costs_its_own_trust_domain(settings: FileSettings) -> None:
    path = settings.bundle.with_name("b.pem")
    path.write_bytes(pem_of(ROOT_B))
    async with looking(replace(settings, federated={B: path})) as looks:
        await looks.look()
        assert looks.source.current is not None
        assert looks.source.current.bundles.keys() == {A, B}
        for link_to_itself in (False, True):
            path.unlink()
            if link_to_itself:
                path.symlink_to(path.name)
            await looks.look(2)
            assert looks.state() is State.STALE
            assert looks.source.current.bundles.keys() == {A, B}
            await looks.look()
            assert looks.state() is State.READY
            assert looks.source.current.bundles.keys() == {A}
            assert looks.source.last_error == "1 federated bundles cannot be used"
            path.unlink(missing_ok=True)
            path.write_bytes(pem_of(ROOT_B))
            await looks.look(2)
            assert looks.source.current.bundles.keys() == {A, B}


async def test_jwt_bundles_that_stay_away_are_no_keys(settings: FileSettings) -> None:
    path = settings.bundle.with_name("jwt_bundle.json")
    path.write_text("junk")
    async with looking(replace(settings, jwt_bundles=path)) as looks:
        await looks.look()
        assert looks.number() == 1
        assert looks.source.counts.discarded == 1
        path.write_text('{"a.test": "eyJrZXlzIjogW119"}')
        await looks.look(2)
        assert looks.source.jwt_bundles.keys() == {A}
        path.unlink()
        await looks.look(2)
        assert looks.source.jwt_bundles.keys() == {A}
        await looks.look()
        assert looks.source.jwt_bundles == {}
        assert looks.number() == 1


async def test_a_jwt_svid_is_had_for_configured_audiences_only_from_private_files(settings: FileSettings) -> None:
    path = settings.bundle.with_name("token")
    async with looking(replace(settings, jwt_svids={AUDIENCE: path})) as looks:
        await looks.look()
        for audience, content, mode, cause in (
            (AUDIENCE, None, 0, "is missing"),
            (AUDIENCE, b"token", 0o644, "chmod 0600"),
            (AUDIENCE, b"\xff", 0o600, "holds no JWT-SVID"),
            ("https://other.test", b"token", 0o600, "identity.files.jwt_svids"),
        ):
            if content is not None:
                path.write_bytes(content)
                path.chmod(mode)
            with pytest.raises(Unavailable, match=cause):
                await looks.source.jwt_svid(audience)


REFUSED: dict[str, Callable[[FileSettings], dict[str, Any]]] = {
    "certificate and bundle in one file": lambda settings: {"bundle": settings.certificate},
    "two trust domains in one file": lambda settings: {"federated": {B: settings.bundle}},
    "no second look": lambda settings: {"settle_s": 0.0},
    "a second look later than the next": lambda settings: {"look_every_s": 0.1},
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_make_no_sense_are_refused(settings: FileSettings, case: str) -> None:
    with pytest.raises(ValueError, match=r"named twice|second look"):
        replace(settings, **REFUSED[case](settings))


def test_the_second_look_may_come_with_the_next(settings: FileSettings) -> None:
    assert replace(settings, settle_s=settings.look_every_s).settle_s == settings.look_every_s


def test_only_what_is_secret_must_be_private(settings: FileSettings) -> None:
    watched = replace(settings, federated={B: Path("/b.pem")}, spiffe_id=SpiffeId(SELF)).watched
    assert [file.path for file in watched if file.private] == [settings.key]
    assert len(watched) == 4
