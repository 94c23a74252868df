"""``sidecar sts keygen DIRECTORY``: add the next signing key, early enough for all consumers to know it when it signs.

The first key signs at once. Every later one is published on arrival, and signs ``--lead`` seconds after the newest one
does or from now, whichever is later. With ``--every`` it is safe to run at any frequency, on several machines.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from delegation_core.console.examples import add_examples
from delegation_core.errors import ConfigError, Problem
from sidecar.sts.key_files import file_name, key_times
from sidecar.sts.keys import SigningKey
from sidecar.sts.schedule import ANNOUNCE_S

DEFAULT_LEAD_S: Final = ANNOUNCE_S + 180  # and three minutes to put the file where replicas read it
ALGORITHMS: Final = ("ES256", "EdDSA", "RS256")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(
        parser,
        "sidecar sts keygen /var/lib/sidecar/keys",
        "sidecar sts keygen /var/lib/sidecar/keys --every 604800 --lead 7200  # from a timer: a new key each week",
    )
    parser.add_argument("directory", metavar="DIRECTORY", help="directory of the keys; created if missing")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="ES256", help="default %(default)s")
    parser.add_argument(
        "--lead", type=int, default=DEFAULT_LEAD_S, metavar="SECONDS", help="until it signs (default %(default)s)"
    )
    parser.add_argument(
        "--every", type=int, metavar="SECONDS", help="do nothing while the newest key is younger than this"
    )
    parser.add_argument(
        "--group-readable", action="store_true", help="mode 0640: for a token service of this group, but another user"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Exit codes: 0 there is a key, 2 no key could be made."""
    try:
        made = add_key(
            Path(arguments.directory),
            now=int(time.time()),
            lead_s=arguments.lead,
            every_s=arguments.every,
            algorithm=arguments.algorithm,
            mode=0o640 if arguments.group_readable else 0o600,
        )
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - the command's own output
        return 2
    print(f"{made}" if made else "the newest key is young enough")  # noqa: T201 - as above
    return 0


def add_key(
    directory: Path,
    *,
    now: int,
    lead_s: int = DEFAULT_LEAD_S,
    every_s: int | None = None,
    algorithm: str = "ES256",
    mode: int = 0o600,
) -> Path | None:
    """Create a key and move it into place atomically; None if the newest is younger than ``every_s``, or made just now.

    Raises:
        ConfigError: ``lead_s`` is too short, the directory holds a foreign file or cannot be written to.
    """
    if lead_s < ANNOUNCE_S:
        wrong = "is too short for consumers to learn of the key"
        raise ConfigError([Problem("--lead", wrong, f"write {ANNOUNCE_S} or more")])
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        newest = max(key_times(directory), default=None)
        if newest is not None and every_s is not None and now < newest + every_s:
            return None
        path = directory / file_name(now if newest is None else max(now, newest) + lead_s)
        made = _write_new(path, _pem(SigningKey.generate(algorithm)), mode)
    except OSError as error:
        wrong = f"cannot take a key ({error.strerror})"
        raise ConfigError([Problem(str(directory), wrong, "name a directory that this user owns")]) from error
    return path if made else None


def _pem(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_new(path: Path, content: bytes, mode: int = 0o600) -> bool:
    """Write a file that appears whole; False if it exists already. Readers ignore its temporary name."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:  # another process made the key of this very second
        return False
    finally:
        draft.unlink()
    return True
