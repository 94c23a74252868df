"""The directory of signing keys that replicas share: one PEM file per key, named by the time from which it signs.

``20261125T033000Z.pem`` signs from that second (UTC) until the next file's. Files are only ever added (``sidecar sts
keygen``), and may be removed once their tokens have expired. Files that do not end in ``.pem``, or start with a dot,
are ignored.

Only the owner may read a key. Group-readable is accepted only where another user owns the file, as in a Kubernetes
volume with ``fsGroup``: root owns it, and we read it through the group.
"""

from __future__ import annotations

import calendar
import os
import re
import stat
import time
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from delegation_core.errors import ConfigError, Problem
from sidecar.sts.contradictions import MAX_DELEGATION_LIFE_S
from sidecar.sts.keys import KeyRefusedError, SigningKey
from sidecar.sts.schedule import ANNOUNCE_S, GRACE_S, LATE_S, KeySchedule, TimedKey

MAX_PEM_BYTES: Final = 16_384
MAX_KEYS: Final = 64  # not counting long-expired ones; consumers refuse a set of more than a hundred
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z\.pem")
_TIME: Final = "%Y%m%dT%H%M%SZ.pem"


def file_name(signs_from: int) -> str:
    """Return the name of a key's file. ``signs_from`` is in seconds since the epoch."""
    return time.strftime(_TIME, time.gmtime(signs_from))


def time_of(name: str) -> int | None:
    """Parse the time (seconds since the epoch) in a key file's name; None for another name."""
    if not _NAME.fullmatch(name):
        return None
    try:
        return calendar.timegm(time.strptime(name, _TIME))
    except ValueError:
        return None


def key_times(directory: Path) -> dict[int, str]:
    """Return the times of all keys in order, with their files' names.

    Raises:
        ConfigError: the directory cannot be listed, or a key's name states no time.
    """
    try:
        names = [path.name for path in _pem_files(directory)]
    except OSError as error:
        raise ConfigError([_problem(directory, f"cannot be listed ({error.strerror})", "name a directory")]) from error
    problems = [
        _problem(
            directory / name,
            "has no activation time in its name",
            f"name it like {file_name(0)}, or use sts keygen",
        )
        for name in names
        if time_of(name) is None
    ]
    if problems:
        raise ConfigError(problems)
    return {time_of(name) or 0: name for name in names}


def load_schedule(
    directory: Path, now: int, *, announce_s: int = ANNOUNCE_S, before: KeySchedule | None = None
) -> KeySchedule:
    """Read the keys that are in use at ``now`` or later. ``before`` is a running replica's previous schedule.

    Raises:
        ConfigError: as ``key_times``; all exposed files and those without a usable key; no key, one twice, or too many.
    """
    times = key_times(directory)
    over = _over(times, now, announce_s, before)
    wanted = [(signs_from, directory / name) for signs_from, name in times.items() if signs_from not in over]
    if len(wanted) > MAX_KEYS:
        raise ConfigError([_problem(directory, f"holds more than {MAX_KEYS} keys", "remove those not used yet")])
    keys: list[TimedKey] = []
    problems: list[Problem] = []
    for signs_from, path in wanted:
        try:
            keys.append(TimedKey(signs_from, _load(path)))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    try:
        found = tuple(keys)
        return KeySchedule(found, announce_s).started(now) if before is None else before.followed_by(found, now)
    except KeyRefusedError as error:
        raise ConfigError([_problem(directory, str(error), "add one by: sidecar sts keygen DIRECTORY")]) from error


def look(directory: Path) -> Hashable:
    """Return a value that changes whenever the directory's keys do, to poll for changes.

    Raises:
        OSError: the directory cannot be listed, or a file is gone by now.
    """
    found = []
    for path in _pem_files(directory):
        status = path.stat()
        found.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode))
    return tuple(found)


def exposure(mode: int, owner: int, own: int) -> str | None:
    """Describe other users who could read or change a key's file; None if nobody can. ``owner`` and ``own`` are user
    ids.
    """
    if owner not in {0, own}:
        return "belongs to another user"
    if mode & (stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP):
        return "is accessible to users other than its owner"
    if mode & stat.S_IRGRP and owner == own:
        return "is accessible to its group, although its owner is this user"
    return None


def _pem_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix == ".pem" and not path.name.startswith("."))


def _over(times: Collection[int], now: int, announce_s: int, before: KeySchedule | None) -> frozenset[int]:
    """Return the times of keys whose last token has expired, even with the longest life that settings allow."""
    if before is None:
        due = {signs_from: signs_from for signs_from in times}
    else:  # a file that is new here may be held back
        due = dict.fromkeys(times, now) | {one.signs_from: one.due_at for one in before.keys if one.signs_from in times}
    kept_s = MAX_DELEGATION_LIFE_S + GRACE_S + announce_s + LATE_S
    ends = [at for at in due if due[at] + kept_s <= now]
    return frozenset(at for at in due if any(end > at for end in ends))


def _load(path: Path) -> SigningKey:
    try:
        return SigningKey.of(load_pem_private_key(_read_private(path), password=None))
    except OSError as error:
        wrong, fix = f"cannot be read ({error.strerror})", "make it readable for this user alone"
        raise ConfigError([_problem(path, wrong, fix)]) from error
    except KeyRefusedError as error:
        raise ConfigError([_problem(path, str(error), "make a new key")]) from error
    except (ValueError, TypeError, UnsupportedAlgorithm):  # cryptography quotes the input in its errors
        raise ConfigError(
            [_problem(path, "holds no unencrypted PEM private key", "write one in PKCS#8 form")]
        ) from None


def _read_private(path: Path) -> bytes:
    """Read through one descriptor, so the file checked is the file read; opening a pipe does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        exposed = exposure(status.st_mode, status.st_uid, os.geteuid())
        if exposed is not None:
            raise ConfigError([_problem(path, exposed, "chmod 0600, as the user that runs the service")])
        return os.read(descriptor, MAX_PEM_BYTES)
    finally:
        os.close(descriptor)


def _problem(path: Path, wrong: str, fix: str) -> Problem:
    return Problem(str(path), wrong, fix)
