from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from delegation_core.errors import Reason, Unavailable
from sidecar.features.outside import static_keys
from sidecar.features.outside.static_keys import StaticKey, StaticKeys
from sidecar.identity.file_reader import Seen, Watched, look_at
from sidecar.observe.secret_names import secret_fingerprint

KEY = b"sk-abcabcabd"
LONG = b"sk-abcabcabd-abcabc"


def named(key: bytes) -> str:
    """Return what records say of a key; a short one has no fingerprint."""
    return secret_fingerprint(key) or "unnamed"


def key_file(folder: Path, content: bytes = KEY + b"\n", mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.001)


class Disk:
    """Looks at files, unless they hang, and remembers which thread looked."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.answers = threading.Event()
        self.answers.set()
        self.looks = 0

    def look(self, file: Watched, before: Seen | None) -> Seen:
        self.threads.add(threading.get_ident())
        self.answers.wait(10)
        seen = look_at(file, before)
        self.looks += 1
        return seen


class Followed:
    """Keys whose files are looked at without a pause, and their clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(static_keys, "LOOK_S", 0.001)
        self.now = 0.0
        self.disk = Disk()
        self.keys = StaticKeys(monotonic=lambda: self.now, look=self.disk.look)

    async def of(self, path: Path) -> StaticKey | str:
        """Return the key, or the refusal, after the next look at the file."""
        await self.keys.first_look(str(path))
        looks = self.disk.looks
        await until(lambda: self.disk.looks > looks + 1)
        return self.at_once(path)

    def at_once(self, path: Path) -> StaticKey | str:
        try:
            return self.keys.of(str(path))
        except Unavailable as refused:
            return f"{refused.reason}: {refused.detail}"


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Followed:
    return Followed(monkeypatch)


async def test_a_key_is_read_again_when_its_file_changes(followed: Followed, tmp_path: Path) -> None:
    path = key_file(tmp_path)
    first = await followed.of(path)
    assert first == StaticKey(KEY, named(KEY))
    assert await followed.of(path) is first
    key_file(tmp_path, LONG)
    assert await followed.of(path) == StaticKey(LONG, named(LONG))
    path.unlink()
    assert await followed.of(path) == f"credential_unavailable: {path} is missing"
    key_file(tmp_path)
    assert await followed.of(path) == first


async def test_no_call_touches_the_disk_and_none_gets_a_key_before_it_was_read(
    followed: Followed, tmp_path: Path
) -> None:
    path = key_file(tmp_path)
    followed.disk.answers.clear()
    assert "not been read yet" in str(followed.at_once(path))
    assert "not been read yet" in str(followed.at_once(path))
    followed.disk.answers.set()
    assert isinstance(await followed.of(path), StaticKey)
    assert len(followed.disk.threads) == 1
    assert threading.get_ident() not in followed.disk.threads


async def test_a_file_that_does_not_answer_stops_its_key_after_ten_seconds_and_no_other(
    followed: Followed, tmp_path: Path
) -> None:
    path = key_file(tmp_path)
    assert isinstance(await followed.of(path), StaticKey)
    followed.disk.answers.clear()
    await asyncio.sleep(0.01)
    followed.now = 10
    assert isinstance(followed.at_once(path), StaticKey)
    followed.now = 10.1
    assert "does not answer" in str(followed.at_once(path))
    followed.disk.answers.set()
    assert isinstance(await followed.of(path), StaticKey)


async def test_a_first_look_that_hangs_is_given_up(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_keys, "FIRST_S", 0.01)
    followed.disk.answers.clear()
    await followed.keys.first_look("/hangs")
    followed.keys.first_look_at_start("/hangs")
    assert not followed.keys.has_looked("/hangs")
    followed.disk.answers.set()


async def test_a_file_is_looked_at_only_while_somebody_can_ask(followed: Followed, tmp_path: Path) -> None:
    await followed.of(key_file(tmp_path))
    (ours,) = followed.disk.threads
    del followed.keys
    await until(lambda: all(one.ident != ours for one in threading.enumerate()))


async def test_a_thread_that_cannot_start_refuses_the_call_and_the_next_one_starts_it(
    followed: Followed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    path = key_file(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_thread)
        assert followed.at_once(path) == f"credential_unavailable: {path} cannot be followed: can't start new thread"
        with pytest.raises(Unavailable):
            await followed.keys.first_look(str(path))
        with pytest.raises(Unavailable):
            followed.keys.first_look_at_start(str(path))
    assert isinstance(await followed.of(path), StaticKey)


def test_a_key_is_in_no_text(tmp_path: Path) -> None:
    keys = StaticKeys()
    keys.first_look_at_start(str(key_file(tmp_path)))
    assert KEY.decode() not in f"{keys!r}{vars(keys)!r}"


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        pytest.param(b"", 0o600, id="empty"),
        pytest.param(b"7 chars", 0o600, id="a space"),
        pytest.param(b"1234567", 0o600, id="too short"),
        pytest.param(b"k" * 4097, 0o600, id="too long"),
        pytest.param(KEY + b"\n" + KEY, 0o600, id="two lines"),
        pytest.param(b"sk-\r\nx: y12345", 0o600, id="a line break within"),
        pytest.param("sk-schlüssel".encode(), 0o600, id="not ASCII"),
        pytest.param(KEY, 0o644, id="open to others"),
    ],
)
def test_a_file_without_one_private_key_is_refused_without_quoting_it(
    content: bytes, mode: int, tmp_path: Path
) -> None:
    keys, path = StaticKeys(), str(key_file(tmp_path, content, mode))
    keys.first_look_at_start(path)
    with pytest.raises(Unavailable) as refusal:
        keys.of(path)
    assert refusal.value.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert "sk-" not in str(refusal.value)
