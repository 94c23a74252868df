"""Identities of a cluster's pods from a real SPIRE: the cluster's ClusterSPIFFEIDs become entries of its server.

It replaces the spire-controller-manager alone: like that it registers one entry for each pod that an object selects,
bound to the pod's uid and to the object's own selectors. SPIRE's agent and its attestors decide who gets them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.pki import IssuedSvid, TrustDomainAuthority
from tests.interop.cluster_identities import (
    PARTNER,
    SOCKET,
    Watched,
    Workload,
    filled,
    minted,
    selects,
    workload_in,
)
from tests.interop.cluster_spire import install_agent, on_the_node, remove_agent
from tests.interop.kube import Object
from tests.interop.spire import Spire

SPACE: Final = "sidecar-test-identities"  # the namespace of SPIRE's agent
KINDS: Final = ("clusterspiffeids", "pods", "namespaces")
_READ: Final = {"spiffeIDTemplate", "namespaceSelector", "podSelector", "workloadSelectorTemplates", "federatesWith"}
_START_S: Final = 90.0
_CALL_S: Final = 30.0


def registrations(
    rules: Iterable[Object], pods: Iterable[Object], namespaces: Iterable[Object], node: str
) -> dict[str, Object]:
    """Return the entries that ClusterSPIFFEIDs make of the pods of one node, by entry id."""
    labels = {one["metadata"]["name"]: one["metadata"].get("labels", {}) for one in namespaces}
    known = [pod for pod in pods if pod["metadata"]["namespace"] in labels]
    made = {}
    for rule in rules:
        spec = rule["spec"]
        assert spec.keys() <= _READ, f"{rule['metadata']['name']}: {sorted(spec.keys() - _READ)} would be ignored"
        for pod in known:
            workload = workload_in(pod, None, labels[pod["metadata"]["namespace"]])
            if selects(spec, workload):
                entry = _entry(spec, workload, pod["metadata"]["uid"], node)
                name = hashlib.sha256(json.dumps(entry).encode()).hexdigest()
                made[name] = {"entry_id": name, **entry}
    return made


def _entry(spec: Object, workload: Workload, uid: str, node: str) -> Object:
    own = [filled(one, workload) for one in spec.get("workloadSelectorTemplates", ())]
    selectors = [one.partition(":") for one in (f"k8s:pod-uid:{uid}", *own)]
    return {
        "parent_id": node,
        "spiffe_id": filled(spec["spiffeIDTemplate"], workload),
        "selectors": [{"type": kind, "value": value} for kind, _, value in selectors],
        "federates_with": [f"spiffe://{domain}" for domain in spec.get("federatesWith", ())],
    }


class SpireIdentities:
    """Runs SPIRE with the Workload API in ``api``, and keeps its entries current from its own thread, until stopped.

    PARTNER's authority is no SPIRE's: a server refuses to sign a name of another trust domain, and a test needs one.
    ``folder`` keeps SPIRE's files and logs; ``image`` is one with Python, for the pod of SPIRE's agent.
    """

    def __init__(self, api: Path, image: str, folder: Path) -> None:
        self._socket, self._image, self._folder = api / SOCKET, image, folder
        self._partner = TrustDomainAuthority(PARTNER)
        self._withdrawn: set[str] = set()
        self._changed = asyncio.Event()
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1, "identities")
        self._started = Future[Spire]()
        self._running: Future[None] | None = None

    def start(self) -> None:
        install_agent(SPACE, self._image)
        self._running = self._thread.submit(self._loop.run_until_complete, self._run())
        either: tuple[Future[Any], ...] = (self._running, self._started)
        wait(either, _START_S, FIRST_COMPLETED)
        self._spire()

    def stop(self) -> None:
        try:
            if self._running is not None:
                self._ended = True
                if not self._running.done():
                    self._loop.call_soon_threadsafe(self._changed.set)
                self._running.result(_CALL_S)
        finally:
            self._thread.shutdown()
            self._loop.close()
            self._socket.unlink(missing_ok=True)
            remove_agent(SPACE)

    def mint(self, spiffe_id: str, by: TrustDomain) -> IssuedSvid:
        """Mint a certificate with any name, as whoever may command SPIRE's server, or has the partner's keys."""
        if by == PARTNER:
            return minted(spiffe_id, self._partner)
        with TemporaryDirectory() as name:
            self._wait_for(self._spire().server("x509", "mint", "-spiffeID", spiffe_id, "-write", name))
            chain = x509.load_pem_x509_certificates(Path(name, "svid.pem").read_bytes())
            key = load_pem_private_key(Path(name, "key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return IssuedSvid(spiffe_id=SpiffeId(spiffe_id), chain=tuple(chain), key=key)

    def withdraw(self, spiffe_id: str) -> None:
        """Withdraw the identity from everybody: its entries are deleted."""
        self._withdrawn.add(spiffe_id)
        self._look_again()

    def give_back(self, spiffe_id: str) -> None:
        self._withdrawn.discard(spiffe_id)
        self._look_again()

    def _spire(self) -> Spire:
        """Return the running SPIRE, or raise what ended it."""
        if self._running is not None and self._running.done():
            self._running.result()
        return self._started.result(0)

    def _wait_for(self, command: Coroutine[Any, Any, str]) -> str:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(_CALL_S)

    def _look_again(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    async def _run(self) -> None:
        self._folder.mkdir(mode=0o700)
        async with on_the_node(self._folder, SPACE, self._socket, partner=str(PARTNER)) as spire:
            bundle = self._folder / "partner.pem"
            bundle.write_bytes(self._partner.bundle_pem())
            await spire.server("bundle", "set", "-id", f"spiffe://{PARTNER}", "-path", str(bundle))
            rules, pods, namespaces = kinds = [Watched(kind, self._look_again) for kind in KINDS]
            try:
                self._started.set_result(spire)
                await self._register(spire, rules, pods, namespaces)
            finally:
                for kind in kinds:
                    kind.stop()

    async def _register(self, spire: Spire, rules: Watched, pods: Watched, namespaces: Watched) -> None:
        registered: set[str] = set()
        while not self._ended:
            await self._changed.wait()
            self._changed.clear()
            made = registrations(rules.all(), pods.all(), namespaces.all(), spire.node)
            wanted = {name: one for name, one in made.items() if one["spiffe_id"] not in self._withdrawn}
            await self._send(spire, "delete", "-file", {"ids": sorted(registered - wanted.keys())})
            await self._send(
                spire, "create", "-data", {"entries": [wanted[name] for name in wanted.keys() - registered]}
            )
            registered = set(wanted)

    async def _send(self, spire: Spire, command: str, option: str, batch: dict[str, list[Any]]) -> None:
        if any(batch.values()):
            path = self._folder / f"{command}.json"
            path.write_text(json.dumps(batch))
            await spire.server("entry", command, option, str(path))
