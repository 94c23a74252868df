from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from delegation_core.errors import ConfigError
from sidecar.sts.contradictions import MAX_DELEGATION_LIFE_S
from sidecar.sts.key_files import MAX_KEYS, exposure, file_name, key_times, load_schedule, look, time_of
from sidecar.sts.keys import SigningKey
from sidecar.sts.schedule import ANNOUNCE_S, GRACE_S, LATE_S

T = 1_790_000_000
FIRST = "20260921T141320Z.pem"
SECOND = "20260922T000000Z.pem"
KEY = SigningKey.generate()


def pem(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_key(path: Path, key: SigningKey | None = None, *, mode: int = 0o600, document: bytes = b"") -> SigningKey:
    key = key or SigningKey.generate()
    path.write_bytes(document or pem(key))
    path.chmod(mode)
    return key


def test_a_files_name_says_when_its_key_signs() -> None:
    assert file_name(T) == FIRST
    assert time_of(FIRST) == T


@pytest.mark.parametrize(
    "name",
    [
        "active.pem",
        "20260921T142640.pem",
        "20261321T142640Z.pem",
        "2026-09-21T14:26:40Z.pem",
        "20260921T14264Z.pem",
        f"{FIRST}.bak",
    ],
)
def test_another_name_says_no_time(name: str) -> None:
    assert time_of(name) is None


def test_the_directory_gives_all_keys_in_the_order_in_which_they_sign(tmp_path: Path) -> None:
    second, first = write_key(tmp_path / SECOND), write_key(tmp_path / FIRST)
    (tmp_path / "README").write_text("not a key")
    (tmp_path / ".draft.pem").write_text("not a key yet")
    keys = load_schedule(tmp_path, T).keys
    assert [(one.signs_from, one.key.kid) for one in keys] == [(T, first.kid), (time_of(SECOND), second.kid)]


def test_replicas_agree_on_every_key(tmp_path: Path) -> None:
    write_key(tmp_path / FIRST)
    write_key(tmp_path / SECOND)
    rings = [load_schedule(tmp_path, T).at(T + 10, keep_s=60) for _ in range(2)]
    assert rings[0].jwks() == rings[1].jwks()


def encrypted(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def weak() -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("name", "mode", "document"),
    [
        pytest.param(SECOND, 0o640, b"", id="open to the group of its owner"),
        pytest.param(SECOND, 0o604, b"", id="open to the world"),
        pytest.param(SECOND, 0o600, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", id="no key"),
        pytest.param(SECOND, 0o600, b"secret", id="no PEM"),
        pytest.param(SECOND, 0o600, encrypted(KEY), id="an encrypted key"),
        pytest.param(SECOND, 0o600, weak(), id="another curve"),
        pytest.param("active.pem", 0o600, b"", id="a name without a time"),
    ],
)
def test_a_bad_key_file_is_refused_by_name_and_without_its_content(
    tmp_path: Path, name: str, mode: int, document: bytes
) -> None:
    write_key(tmp_path / FIRST)
    write_key(tmp_path / name, mode=mode, document=document)
    with pytest.raises(ConfigError) as refused:
        load_schedule(tmp_path, T)
    assert [problem.field for problem in refused.value.problems] == [str(tmp_path / name)]
    assert "secret" not in str(refused.value)
    assert "c2VjcmV0" not in str(refused.value)
    (tmp_path / name).unlink()
    write_key(tmp_path / SECOND)
    assert len(load_schedule(tmp_path, T).keys) == 2


def test_all_bad_files_are_told_at_once(tmp_path: Path) -> None:
    for name in (FIRST, SECOND):
        write_key(tmp_path / name, mode=0o644)
    with pytest.raises(ConfigError) as refused:
        load_schedule(tmp_path, T)
    assert len(refused.value.problems) == 2


def test_a_directory_without_a_key_or_none_at_all_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError):
            load_schedule(directory, T)


def test_one_key_in_two_files_is_refused(tmp_path: Path) -> None:
    key = write_key(tmp_path / FIRST)
    write_key(tmp_path / SECOND, key)
    with pytest.raises(ConfigError, match="twice"):
        load_schedule(tmp_path, T)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(mode=0o700), lambda path: os.mkfifo(path, 0o600)])
def test_what_is_no_file_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path / FIRST)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=FIRST):
        load_schedule(tmp_path, T)


def test_keys_long_over_are_not_even_read(tmp_path: Path) -> None:
    write_key(tmp_path / FIRST, document=b"rubbish")
    write_key(tmp_path / SECOND)
    over = (time_of(SECOND) or 0) + MAX_DELEGATION_LIFE_S + GRACE_S + ANNOUNCE_S + LATE_S
    assert len(load_schedule(tmp_path, over).keys) == 1
    with pytest.raises(ConfigError, match=FIRST):
        load_schedule(tmp_path, over - 1)


def test_a_key_is_not_over_while_its_late_successor_is_held_back(tmp_path: Path) -> None:
    signing = write_key(tmp_path / FIRST)
    running = load_schedule(tmp_path, T)
    late = (time_of(SECOND) or 0) + 2 * MAX_DELEGATION_LIFE_S
    write_key(tmp_path / SECOND)
    for now in (late, late + 10):
        running = load_schedule(tmp_path, now, before=running)
        assert running.at(now, keep_s=60).active.kid == signing.kid
    over = late + ANNOUNCE_S + MAX_DELEGATION_LIFE_S + GRACE_S + ANNOUNCE_S + LATE_S
    assert len(load_schedule(tmp_path, over - 1, before=running).keys) == 2
    assert len(load_schedule(tmp_path, over, before=running).keys) == 1


def test_a_key_is_not_over_before_the_next_one_signs(tmp_path: Path) -> None:
    write_key(tmp_path / FIRST)
    assert len(load_schedule(tmp_path, T + 10 * MAX_DELEGATION_LIFE_S).keys) == 1


def test_more_keys_than_consumers_take_are_refused(tmp_path: Path) -> None:
    for number in range(MAX_KEYS):
        write_key(tmp_path / file_name(T + number))
    assert len(load_schedule(tmp_path, T).keys) == MAX_KEYS
    write_key(tmp_path / file_name(T + MAX_KEYS))
    with pytest.raises(ConfigError, match="more than"):
        load_schedule(tmp_path, T)


OWN, ROOT, OTHER = 1000, 0, 2000


@pytest.mark.parametrize(
    ("mode", "owner", "own", "private"),
    [
        pytest.param(0o600, OWN, OWN, True, id="ours alone"),
        pytest.param(0o400, ROOT, ROOT, True, id="root's alone, and we are root"),
        pytest.param(0o440, ROOT, OWN, True, id="a volume with fsGroup"),
        pytest.param(0o640, ROOT, OWN, True, id="a volume with fsGroup that its owner may write"),
        pytest.param(0o440, OWN, OWN, False, id="ours, and open to our group"),
        pytest.param(0o440, ROOT, ROOT, False, id="root's, open to a group, and we are root"),
        pytest.param(0o460, ROOT, OWN, False, id="the group may write"),
        pytest.param(0o450, ROOT, OWN, False, id="the group may execute"),
        pytest.param(0o444, ROOT, OWN, False, id="everybody may read"),
        pytest.param(0o602, OWN, OWN, False, id="everybody may write"),
        pytest.param(0o601, OWN, OWN, False, id="everybody may execute"),
        pytest.param(0o440, OTHER, OWN, False, id="another user's"),
        pytest.param(0o600, OTHER, ROOT, False, id="another user's, and we are root"),
    ],
)
def test_a_key_is_private_if_nobody_else_can_have_read_it(mode: int, owner: int, own: int, private: bool) -> None:
    assert (exposure(stat.S_IFREG | mode, owner, own) is None) is private


def test_a_changed_directory_looks_different_and_others_files_do_not_count(tmp_path: Path) -> None:
    write_key(tmp_path / FIRST)
    before = look(tmp_path)
    (tmp_path / "README").write_text("x")
    (tmp_path / ".draft.pem").write_text("x")
    assert look(tmp_path) == before
    write_key(tmp_path / SECOND)
    after = look(tmp_path)
    assert after != before
    (tmp_path / FIRST).unlink()
    assert look(tmp_path) not in (before, after)
    with pytest.raises(OSError, match="No such file"):
        look(tmp_path / "missing")


def test_the_times_of_all_keys_are_told_without_reading_them(tmp_path: Path) -> None:
    write_key(tmp_path / FIRST, document=b"rubbish")
    assert key_times(tmp_path) == {T: FIRST}
