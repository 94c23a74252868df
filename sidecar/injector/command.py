"""``sidecar injector``: wiring of the webhook. Start order, stop order, no logic."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from delegation_core.console.examples import add_examples
from delegation_core.errors import ConfigError, Problem, Reason
from sidecar.background import Parts
from sidecar.file_watch import FileWatcher, Watched, fingerprint
from sidecar.injector.certificates import CERTIFICATE, KEY, ServingCertificate, files_in
from sidecar.injector.injection import Injection, parse_injection
from sidecar.injector.metrics import InjectorMetrics
from sidecar.injector.webhook import Webhook
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.placement import placement
from sidecar.observe.probe import probe_pages
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.observe.sink import StdoutSink
from sidecar.process import run_until_signal
from sidecar.serving.app_site import QuietProtocol, quiet_runner
from sidecar.serving.connections import Connections, Crowd
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe
from sidecar.serving.site import TlsSite
from sidecar.signals import release_signals

DRAIN_S: Final = 10.0
MAX_CONNECTIONS: Final = 512
_CROWD: Final = Crowd(max_bytes=8 * 1024 * 1024)  # anybody may connect: an API server shows no certificate
_OWN_DESCRIPTORS: Final = 32  # the loop's, listeners, reloaded files, probes
_ARRIVES_IN_S: Final = 5.0  # for handshake, then head and body: an API server's default timeout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(
        parser,
        "sidecar injector --injection /etc/sidecar/injection.yaml --tls /etc/sidecar/tls",
        "sidecar injector --injection injection.yaml --try pod.yaml --namespace shop",
    )
    parser.add_argument("--injection", required=True, type=Path, metavar="FILE", help="what the chart rendered")
    parser.add_argument("--tls", type=Path, metavar="DIR", help="the folder of tls.crt and tls.key")
    parser.add_argument(
        "--try",
        dest="trial",
        type=Path,
        metavar="FILE",
        help="do not serve: show the decision on the pod in a file",
    )
    parser.add_argument("--json", action="store_true", help="for machines, with --try")
    parser.add_argument(
        "--namespace", default="", metavar="NAME", help="with --try: of a pod whose file does not name one"
    )
    parser.add_argument(
        "--listen",
        default=("0.0.0.0", 7445),  # noqa: S104 - the API server calls from anywhere
        type=_address,
        metavar="HOST:PORT",
        help="default 0.0.0.0:7445",
    )
    parser.add_argument(
        "--max-connections",
        default=MAX_CONNECTIONS,
        type=_count,
        metavar="N",
        help="most connections; beyond, idle and slow ones are evicted (default %(default)s)",
    )
    parser.add_argument(
        "--spill",
        type=Path,
        metavar="DIR",
        help="folder for records that standard output did not take at the end; without it the log names each",
    )
    parser.add_argument(
        "--probe", default=("127.0.0.1", 7090), type=_address, metavar="HOST:PORT", help="default 127.0.0.1:7090"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped. Exit codes: 0 ended, 1 cannot listen, 2 certificate or definition are unusable.

    With ``--try``: 0 the pod would be admitted, 1 refused, 2 the pod or the definition is missing or unusable.
    """
    try:
        if arguments.trial is not None:
            from sidecar.injector.trial import try_pod  # a command, which no injector in a cluster runs

            injection = read_injection(arguments.injection)
            return try_pod(arguments.trial, injection, as_json=arguments.json, namespace=arguments.namespace)
        injector = Injector(arguments.injection, _tls_folder(arguments.tls))
    except ConfigError as error:
        print(f"sidecar injector: {error}", file=sys.stderr)  # noqa: T201 - the command's own output
        return 2
    injector.max_connections = arguments.max_connections
    injector.spill_folder = arguments.spill
    return run_until_signal(partial(injector.run, listen=arguments.listen, probe=arguments.probe))


class _Protocol(QuietProtocol):
    """aiohttp's protocol; unparsable HTTP is counted and recorded."""

    __slots__ = ("_no_review",)

    def __init__(self, server: web.Server, no_review: Callable[[str], None]) -> None:
        super().__init__(server)
        self._no_review = no_review

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See the base class."""
        self._no_review(f"HTTP {status}: the request cannot be read")
        return super().handle_error(request, status, exc, message)


class Injector:
    """One webhook with its files. A changed file takes effect, or changes nothing if it is unusable."""

    def __init__(self, injection: Path, tls: Path) -> None:
        """Read the files.

        Raises:
            ConfigError: a file cannot be used.
        """
        self._path, self._tls_files = injection, files_in(tls)
        self._fingerprint, self._tls_fingerprint = self._injection_fingerprint(), self._certificate_fingerprint()
        self._injection = read_injection(injection)
        self._certificate = ServingCertificate(tls)
        self._draining = False
        self.max_connections = MAX_CONNECTIONS
        self.spill_folder: Path | None = None
        self._recorded: AccessLog | None = None

    async def run(
        self, stop: asyncio.Event, *, listen: tuple[str, int], probe: tuple[str, int], up: asyncio.Event | None = None
    ) -> bool:
        """Serve until ``stop``; ``up`` is set once both listeners are open. Returns True if all went well.

        Raises:
            OSError: an address is in use or not ours.
            PartEndedError: the files are no longer watched.
        """
        counts = Metrics()  # the record stream's; its losses are reported with our metrics
        self._metrics = InjectorMetrics(counts)
        self._metrics.certificate(self._certificate.not_after)
        log = AccessLog(StdoutSink(), run=secrets.token_hex(8), metrics=counts, spill_folder=self.spill_folder)
        self._recorded = log
        refused_connections = RefusedConnections(log, "inbound", UnprovenRecords(log))
        self._webhook = Webhook(self._injection, log=log, metrics=self._metrics, unproven=refused_connections.unproven)
        watcher = FileWatcher(self._watched_files(), log)
        serving = Probe(PageSite(probe_pages(self)), *probe)
        runner = quiet_runner(self._webhook.app(), shutdown_s=DRAIN_S)
        await runner.setup()
        background = Parts()
        background.start("files", watcher.run())
        try:
            await self._site(runner, listen, refused_connections, self._webhook.no_review).start()
            await serving.open()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, watcher.wake)
            release_signals(signal.SIGHUP)
            log.event("started", detail=placement(os.environ))
            if up is not None:
                up.set()
            await background.run_until(stop)
        finally:
            self._draining = True
            try:
                await background.close()
                await runner.cleanup()
                await serving.close()
            finally:  # records are written even if a part fails
                log.event("stopped", detail=None if background.error is None else str(background.error))
                await log.close()
        return not log.unwritten

    def _site(
        self,
        runner: web.AppRunner,
        listen: tuple[str, int],
        refused_connections: RefusedConnections,
        no_review: Callable[[str], None],
    ) -> TlsSite:
        assert runner.server is not None  # noqa: S101 - for the type only: the runner was set up

        def cut(reason: Reason, address: str | None) -> None:
            refused_connections(reason, "the request did not arrive in time, or was evicted", address or "")

        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = max(2, min(self.max_connections, descriptors - _OWN_DESCRIPTORS))
        make = partial(_Protocol, runner.server, no_review)
        connections = Connections(make, limit=limit, head_timeout_s=_ARRIVES_IN_S, on_cut=cut, crowd=_CROWD)
        return TlsSite(
            runner, *listen, context=self._certificate.context, connections=connections,
            handshake_timeout_s=_ARRIVES_IN_S, max_handshakes=limit // 2, on_given_up=refused_connections,
        )  # fmt: skip

    async def stuck(self) -> list[str]:
        """See ``Probed``."""
        return []

    async def missing(self) -> list[str]:
        """See ``Probed``: an API server would refuse an expired certificate."""
        lacking = ["draining"] if self._draining else []
        if self._recorded is not None and not self._recorded.healthy:
            lacking.append("records: the sink accepts none")
        if not self._certificate.valid(int(time.time())):
            lacking.append(f"certificate: not valid now; it ends {self._certificate.until()}")
        return lacking

    async def render(self) -> bytes:
        """See ``Probed``."""
        return self._metrics.render()

    def _watched_files(self) -> list[Watched]:
        return [
            Watched(
                what="injection",
                fingerprint=self._injection_fingerprint,
                last=self._fingerprint,
                reload=self._reload_injection,
            ),
            Watched(
                what="certificate",
                fingerprint=self._certificate_fingerprint,
                last=self._tls_fingerprint,
                reload=self._reload_certificate,
            ),
        ]

    def _injection_fingerprint(self) -> Hashable:
        return fingerprint(self._path)

    def _certificate_fingerprint(self) -> Hashable:
        return tuple(map(fingerprint, self._tls_files))

    async def _reload_injection(self) -> None:
        self._webhook.injection = read_injection(self._path)

    async def _reload_certificate(self) -> None:
        self._certificate.reload()
        self._metrics.certificate(self._certificate.not_after)


def read_injection(path: Path) -> Injection:
    """Read the definition from a file.

    Raises:
        ConfigError: the file cannot be read or used.
    """
    try:
        return parse_injection(path.read_bytes())
    except OSError as error:
        fix = "mount the chart's ConfigMap, or give its injection.json"
        raise ConfigError([Problem(str(path), f"cannot be read ({error.strerror})", fix)]) from error


def _tls_folder(tls: Path | None) -> Path:
    if tls is None:
        fix = f"name the folder of {CERTIFICATE} and {KEY}, or try a pod by --try"
        raise ConfigError([Problem("--tls", "is missing", fix)])
    return tls


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("a number above zero")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError("write HOST:PORT, as 0.0.0.0:7445")
    return host.strip("[]"), int(port)
