"""``sidecar dev workload-api``: a SPIFFE Workload API with a CA per trust domain. Never for production.

It applies changes of its entries file within 50 ms. Signals: SIGHUP reads the entries again, SIGUSR1 rotates all
authorities, SIGUSR2 drops authorities that no longer sign, SIGTERM and SIGINT end the process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from delegation_core.console.examples import add_examples
from delegation_core.errors import ConfigError, Problem
from delegation_core.spiffe_id import SpiffeIdError, TrustDomain
from sidecar_dev.certificates import DEVELOPMENT_ONLY, KeyType, certificate_pem, key_pem
from sidecar_dev.entries import Entry, parse_entries
from sidecar_dev.files import write_whole
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_server import DevWorkloadApi

WATCH_S: Final = 0.04
_SETTLED_S: Final = 0.1  # a file that changed more recently may change again with the same time stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(
        parser,
        "sidecar dev workload-api --socket /tmp/mesh/agent.sock --entries entries.yaml --trust-domain acme.example",
    )
    parser.add_argument(
        "--socket",
        required=True,
        type=lambda text: Path(text).absolute(),  # entries name it so
        action="append",
        metavar="PATH",
        help="the Unix socket to listen on; may be given again: entries can tell workloads by their socket",
    )
    parser.add_argument(
        "--entries",
        required=True,
        type=Path,
        metavar="FILE",
        help="which process gets which SPIFFE ID, in the form of compose/entries.yaml",
    )
    parser.add_argument("--trust-domain", required=True, action="append", metavar="NAME", help="may be given again")
    parser.add_argument("--key-type", choices=get_args(KeyType), default="ec-p256", help="default %(default)s")
    parser.add_argument(
        "--socket-mode", type=lambda text: int(text, 8), default=0o600, metavar="OCTAL", help="default 600"
    )
    parser.add_argument(
        "--authorities", type=Path, metavar="DIR", help="write every authority's certificate and private key here"
    )
    parser.add_argument(
        "--bundles", type=Path, metavar="DIR", help="write every trust domain's bundle here: certificates, no keys"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Exit codes: 0 ended, 2 the arguments, the entries or the socket are unusable."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain private keys
    try:
        asyncio.run(_serve(arguments))
    except ConfigError as error:
        _say(str(error))
        return 2
    except OSError as error:
        _say(f"{error.strerror}: {error.filename or ' or '.join(map(str, arguments.socket))}")
        return 2
    return 0


class EntriesFile:
    """Applies an entries file to a registry. A file with problems changes nothing."""

    def __init__(self, path: Path, trust_domains: Sequence[TrustDomain]) -> None:
        self._path = path
        self._trust_domains = trust_domains
        self._seen: tuple[int, int, int] | None = None
        self._complaint = ""

    def read(self) -> tuple[Entry, ...]:
        """Return the entries of the file.

        Raises:
            ConfigError: the file is not readable, or has problems, all of which are listed.
        """
        try:
            facts = self._path.stat()
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([Problem("entries", "the file cannot be read", "mind its path and mode")]) from error
        settled = time.time() - facts.st_mtime > _SETTLED_S
        self._seen = (facts.st_ino, facts.st_size, facts.st_mtime_ns) if settled else None
        return parse_entries(text, self._trust_domains)

    def refresh(self, registry: Registry, *, force: bool = False) -> None:
        """Apply a changed file, with ``force`` also an unchanged one. Reports a lasting problem once."""
        if not force and not self._touch():
            return
        try:
            entries = self.read()
        except ConfigError as error:
            if str(error) != self._complaint:
                _say(f"the entries stay as they are: {error}")
            self._complaint = str(error)
            return
        self._complaint = ""
        if entries != registry.entries:
            registry.replace_entries(entries)

    def _touch(self) -> bool:
        try:
            facts = self._path.stat()
        except OSError:
            return True
        return self._seen != (facts.st_ino, facts.st_size, facts.st_mtime_ns)


async def _serve(arguments: argparse.Namespace) -> None:
    trust_domains = _trust_domains(arguments.trust_domain)
    file = EntriesFile(arguments.entries, trust_domains)
    entries = file.read()
    authorities = [TrustDomainAuthority(domain, key_type=arguments.key_type) for domain in trust_domains]
    registry = Registry(authorities, entries)

    def publish() -> None:
        _publish(authorities, arguments.authorities)
        _publish_bundles(authorities, arguments.bundles)

    def rotate() -> None:
        registry.rotate()
        publish()

    def drop_old() -> None:
        registry.drop_old()
        publish()

    publish()

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, ended.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: file.refresh(registry, force=True))
    loop.add_signal_handler(signal.SIGUSR1, rotate)
    loop.add_signal_handler(signal.SIGUSR2, drop_old)
    async with contextlib.AsyncExitStack() as serving:
        _say(f"WARNING: {DEVELOPMENT_ONLY}: whoever may open such a socket can be given an identity of this mesh")
        for path in arguments.socket:
            api = DevWorkloadApi(path, registry, mode=arguments.socket_mode)
            await serving.enter_async_context(api)
            _say(f"serving {', '.join(trust_domains)} on {api.address}")
        while not ended.is_set():
            file.refresh(registry)
            await _wait(ended, WATCH_S)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


def _trust_domains(names: Sequence[str]) -> list[TrustDomain]:
    try:
        domains = [TrustDomain(name) for name in names]
    except SpiffeIdError as error:
        raise ConfigError([Problem("--trust-domain", str(error), "write a name such as acme.example")]) from error
    if len(set(domains)) < len(domains):
        raise ConfigError([Problem("--trust-domain", "one is named twice", "name each once")])
    return domains


def _publish(authorities: Sequence[TrustDomainAuthority], directory: Path | None) -> None:
    """Write the authorities' certificates and keys into ``directory``, if given; the demo signs attacks with them."""
    if directory is None:
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for authority in authorities:
        write_whole(directory / f"{authority.trust_domain}.pem", certificate_pem(authority.current.certificate))
        write_whole(directory / f"{authority.trust_domain}.key", key_pem(authority.current.key), private=True)


def _publish_bundles(authorities: Sequence[TrustDomainAuthority], directory: Path | None) -> None:
    """Write the bundles as CA files, for programs without a Workload API client."""
    if directory is not None:
        for authority in authorities:
            write_whole(directory / f"{authority.trust_domain}.pem", authority.bundle_pem())


def _say(line: str) -> None:
    sys.stderr.write(f"sidecar dev workload-api: {line}\n")
    sys.stderr.flush()
