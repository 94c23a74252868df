"""A node's Workload API without SPIRE: pods get the identities of the cluster's ClusterSPIFFEIDs.

It replaces SPIRE's agent with its Kubernetes attestor and the spire-controller-manager. The kernel identifies the
caller: the process behind the connection, and its kubelet's mounts, which name pod and container. Only the tests' own
machine may be the node.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.attestation import Peer
from sidecar_dev.certificates import new_key, svid_certificate
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import X509_TTL_S, IssuedSvid, TrustDomainAuthority
from sidecar_dev.registry import Entitlement, NoIdentityError, Registry
from sidecar_dev.workload_server import DevWorkloadApi

DOMAIN: Final = TrustDomain("acme.example")
PARTNER: Final = TrustDomain("partner.example")  # SPIRE's federation partner
SOCKET: Final = "spire-agent.sock"
_MOUNT: Final = re.compile(r"/pods/([0-9a-f-]{36})/containers/([a-z0-9-]+)/")
_TEMPLATED: Final = re.compile(r"{{ \.(\w+(?:\.\w+)*) }}")

CRD: Final[Mapping[str, Any]] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusterspiffeids.spire.spiffe.io"},
    "spec": {
        "group": "spire.spiffe.io",
        "scope": "Cluster",
        "names": {"kind": "ClusterSPIFFEID", "plural": "clusterspiffeids", "singular": "clusterspiffeid"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One container of one pod. ``selectors`` are those that SPIRE's Kubernetes attestor would find."""

    namespace: str
    service_account: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str]
    selectors: frozenset[str]


def processes_of(uid: str, container: str) -> list[int]:
    """Return this machine's processes of one container of a pod."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mounted = _MOUNT.search((folder / "mountinfo").read_text())
        except OSError:  # it has ended
            continue
        if mounted is not None and mounted.groups() == (uid, container):
            found.append(int(folder.name))
    return found


class Watched:
    """All objects of one kind, kept current by a ``kubectl get --watch``; each change is announced from its thread."""

    def __init__(self, kind: str, announce: Callable[[], None] = lambda: None) -> None:
        words = ["kubectl", "get", kind, "--all-namespaces", "--watch", "--output-watch-events", "--output=json"]
        self._objects: dict[str, dict[str, Any]] = {}
        self._announce = announce
        self._watching = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reading = threading.Thread(target=self._read, name=f"watch {kind}")
        self._reading.start()

    def all(self) -> list[dict[str, Any]]:
        return list(self._objects.values())

    def stop(self) -> None:
        self._watching.terminate()
        self._reading.join(30)
        self._watching.wait(30)

    def _read(self) -> None:
        assert self._watching.stdout is not None
        with self._watching.stdout as events:
            for line in events:
                event = json.loads(line)
                uid = event["object"]["metadata"]["uid"]
                if event["type"] == "DELETED":
                    self._objects.pop(uid, None)
                else:
                    self._objects[uid] = event["object"]
                self._announce()


def workload_of(pid: int, pods: list[dict[str, Any]], namespaces: list[dict[str, Any]]) -> Workload | None:
    """Return the workload of a process on this machine; None if it belongs to no pod, is gone, or is not known yet."""
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return None
    found = _MOUNT.search(mounts)
    its = [pod for pod in pods if found and pod["metadata"]["uid"] == found[1]]
    if found is None or not its:
        return None
    metadata = its[0]["metadata"]
    (namespace,) = (one for one in namespaces if one["metadata"]["name"] == metadata["namespace"])
    return workload_in(its[0], found[2], namespace["metadata"].get("labels", {}))


def workload_in(pod: dict[str, Any], container: str | None, namespace_labels: Mapping[str, str]) -> Workload:
    """Return one container of a pod, or the pod itself, as the API server shows the pod."""
    return Workload(
        namespace=pod["metadata"]["namespace"],
        service_account=pod["spec"]["serviceAccountName"],
        labels=pod["metadata"].get("labels", {}),
        namespace_labels=namespace_labels,
        selectors=frozenset(_attested(pod, container)),
    )


def _attested(pod: dict[str, Any], container: str | None) -> Iterator[str]:
    """Return the selectors that SPIRE 1.13 derives from a pod's status: an image by its reference and by its digest.

    For a waiting container Kubernetes shows only the reference in the pod's spec.
    """
    status = pod.get("status", {})
    plain, init = status.get("containerStatuses", []), status.get("initContainerStatuses", [])
    yield f"k8s:pod-uid:{pod['metadata']['uid']}"
    yield f"k8s:ns:{pod['metadata']['namespace']}"
    yield f"k8s:sa:{pod['spec']['serviceAccountName']}"
    yield f"k8s:pod-image-count:{len(plain)}"
    yield f"k8s:pod-init-image-count:{len(init)}"
    for kind, statuses in (("pod-image", plain), ("pod-init-image", init)):
        yield from (f"k8s:{kind}:{one[name]}" for one in statuses for name in ("image", "imageID"))
    for one in (one for one in (*plain, *init) if one["name"] == container and one.get("containerID")):
        yield f"k8s:container-name:{container}"
        yield from (f"k8s:container-image:{one[name]}" for name in ("image", "imageID"))


def entries(workload: Workload, uid: int, rules: list[dict[str, Any]]) -> list[Entry]:
    """Return the entries that ClusterSPIFFEIDs give one container, by name of the rule."""
    return [
        Entry(
            spiffe_id=SpiffeId(filled(rule["spec"]["spiffeIDTemplate"], workload)),
            selectors=Selectors(uid=uid),
            federates_with=frozenset(map(TrustDomain, rule["spec"].get("federatesWith", ()))),
        )
        for rule in sorted(rules, key=lambda one: str(one["metadata"]["name"]))
        if selects(rule["spec"], workload)
        and workload.selectors.issuperset(rule["spec"].get("workloadSelectorTemplates", ()))
    ]


def selects(spec: Mapping[str, Any], workload: Workload) -> bool:
    """Match the workload's namespace and pod."""
    return _selected(spec.get("namespaceSelector"), workload.namespace_labels) and _selected(
        spec.get("podSelector"), workload.labels
    )


def filled(template: str, workload: Workload) -> str:
    values = {
        "TrustDomain": str(DOMAIN),
        "PodMeta.Namespace": workload.namespace,
        "PodSpec.ServiceAccountName": workload.service_account,
    }
    return _TEMPLATED.sub(lambda found: values[found[1]], template)


def _selected(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Match like `metav1.LabelSelector`, with the two operators that the chart uses."""
    if not selector:
        return True
    asked = selector.get("matchLabels", {})
    chosen = selector.get("matchExpressions", ())
    return all(labels.get(key) == value for key, value in asked.items()) and all(
        (labels.get(one["key"]) in one["values"]) is (one["operator"] == "In") for one in chosen
    )


class _PodRegistry(Registry):
    """Entitles pods by the ClusterSPIFFEIDs that exist when they first ask."""

    def __init__(self) -> None:
        super().__init__([TrustDomainAuthority(DOMAIN), TrustDomainAuthority(PARTNER)])
        self.kinds = tuple(Watched(kind) for kind in ("pods", "namespaces", "clusterspiffeids"))
        self.withdrawn: set[str] = set()
        self._known: WeakKeyDictionary[Peer, tuple[Entry, ...]] = WeakKeyDictionary()  # a pid may be reused

    def entitlement(self, peer: Peer | None) -> Entitlement:
        if peer is None or not peer.alive:
            raise NoIdentityError
        known = self._known.get(peer) or self._look(peer)
        left = tuple(one for one in known if str(one.spiffe_id) not in self.withdrawn)
        if not left:
            raise NoIdentityError
        federated = {domain: self.authority(str(domain)) for one in left for domain in one.federates_with}
        return Entitlement(entries=left, own={DOMAIN: self.authority(str(DOMAIN))}, federated=federated)

    def _look(self, peer: Peer) -> tuple[Entry, ...]:
        pods, namespaces, rules = self.kinds
        workload = workload_of(peer.pid, pods.all(), namespaces.all())
        found = () if workload is None else tuple(entries(workload, peer.uid, rules.all()))
        if found:  # an identified process stays so; only an unidentified one may change
            self._known[peer] = found
        return found


def minted(spiffe_id: str, by: TrustDomainAuthority) -> IssuedSvid:
    authority, key = by.current, new_key("ec-p256")
    leaf = svid_certificate(
        SpiffeId(spiffe_id),
        key,
        issuer=authority.certificate,
        issuer_key=authority.key,
        dns_names=(),
        ttl_s=X509_TTL_S,
        issued_at=int(time.time()),
    )
    return IssuedSvid(spiffe_id=SpiffeId(spiffe_id), chain=(leaf,), key=key)


class ClusterIdentities:
    """Serves the Workload API in ``folder`` from its own thread, until stopped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="identities")
        self._registry: _PodRegistry
        self._api: DevWorkloadApi

    def start(self) -> None:
        self._thread.start()

        async def begin() -> None:
            self._registry = _PodRegistry()
            self._api = DevWorkloadApi(self._path, self._registry, mode=0o777)
            await self._api.start()

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(30)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._api.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        for kind in self._registry.kinds:
            kind.stop()
        self._loop.close()

    def mint(self, spiffe_id: str, by: TrustDomain) -> IssuedSvid:
        """Mint a certificate with any name, as the holder of that trust domain's keys can."""
        return minted(spiffe_id, self._registry.authority(str(by)))

    def withdraw(self, spiffe_id: str) -> None:
        """Withdraw the identity from everybody."""
        self._change(self._registry.withdrawn.add, spiffe_id)

    def give_back(self, spiffe_id: str) -> None:
        self._change(self._registry.withdrawn.discard, spiffe_id)

    def _change(self, change: Any, spiffe_id: str) -> None:
        async def changed() -> None:
            change(spiffe_id)
            self._registry.notify()

        asyncio.run_coroutine_threadsafe(changed(), self._loop).result(30)
