from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.cli import main
from sidecar.sts.key_files import file_name, load_schedule, time_of
from sidecar.sts.keygen import DEFAULT_LEAD_S, _write_new, add_key
from sidecar.sts.schedule import ANNOUNCE_S

T = 1_790_000_000


def added(directory: Path, **options: Any) -> str | None:
    made = add_key(directory, **{"now": T, **options})
    return None if made is None else made.name


def test_the_first_key_signs_at_once_and_is_ours_alone(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    assert added(directory) == file_name(T)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / file_name(T)).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.iterdir()] == [file_name(T)]
    assert len(load_schedule(directory, T).keys) == 1


def test_a_key_for_a_token_service_of_the_group_is_readable_by_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sts", "keygen", str(tmp_path), "--group-readable"]) == 0
    made = Path(capsys.readouterr().out.strip())
    assert made.stat().st_mode & 0o777 == 0o640


def test_a_later_key_is_announced_before_it_signs(tmp_path: Path) -> None:
    added(tmp_path)
    assert added(tmp_path, now=T + 5000) == file_name(T + 5000 + DEFAULT_LEAD_S)
    ring = load_schedule(tmp_path, T + 5000).at(T + 5000, keep_s=60)
    assert (len(ring.announced), len(ring.retired)) == (1, 0)


def test_a_key_after_one_that_is_still_to_come_signs_after_that(tmp_path: Path) -> None:
    added(tmp_path)
    second = time_of(added(tmp_path) or "")
    assert second == T + DEFAULT_LEAD_S
    assert added(tmp_path) == file_name(T + 2 * DEFAULT_LEAD_S)


@pytest.mark.parametrize(("age_s", "made"), [(0, False), (999, False), (1000, True)])
def test_a_key_is_made_every_so_often_however_often_it_is_asked_for(tmp_path: Path, age_s: int, made: bool) -> None:
    added(tmp_path, every_s=1000)
    assert (added(tmp_path, now=T + age_s, every_s=1000) is not None) is made
    assert added(tmp_path, now=T + age_s, every_s=1000) is None


def test_a_lead_that_consumers_cannot_follow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--lead"):
        added(tmp_path, lead_s=ANNOUNCE_S - 1)
    assert added(tmp_path, lead_s=ANNOUNCE_S) is not None


def test_no_key_is_ever_replaced_and_no_draft_is_left(tmp_path: Path) -> None:
    (tmp_path / "there.pem").write_bytes(b"first")
    assert not _write_new(tmp_path / "there.pem", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("there.pem", b"first")]


def test_a_place_that_takes_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        added(tmp_path / "file")
    with pytest.raises(ConfigError):
        added(tmp_path / "no" / "parent")
    (tmp_path / "active.pem").touch()
    with pytest.raises(ConfigError, match=r"active\.pem"):
        added(tmp_path)


def test_the_command_says_what_it_made_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "keys"
    assert main(["sts", "keygen", str(directory), "--algorithm", "EdDSA"]) == 0
    (path,) = directory.iterdir()
    assert capsys.readouterr().out == f"{path}\n"
    assert load_schedule(directory, T).keys[0].key.algorithm == "EdDSA"
    assert main(["sts", "keygen", str(directory), "--every", "1000"]) == 0
    assert capsys.readouterr().out == "the newest key is young enough\n"
    assert main(["sts", "keygen", str(directory), "--lead", "1"]) == 2
    assert "--lead" in capsys.readouterr().err
