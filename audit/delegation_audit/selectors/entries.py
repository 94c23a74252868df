"""Model of registration entries from all sources: SPIRE's server, a manifest, a registration file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from delegation_audit.rules import Place

SCHEME: Final = "spiffe://"
WORKLOAD_ATTESTORS: Final = frozenset({"k8s", "unix", "docker", "systemd", "windows", "dev"})
_SERVER_PATH: Final = "/spire/server"
_NODE_PATH: Final = "/spire/agent/"


class Selector(NamedTuple):
    """One property that an attestor finds: ``k8s:pod-label:app:writer`` has the value ``app:writer``."""

    type: str
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.type}:{self.kind}:{self.value}" if self.value else f"{self.type}:{self.kind}"


@lru_cache(maxsize=65536)
def selector_of(text: str) -> Selector:
    """Parse ``type:kind:value``. The value may hold colons."""
    type_, _, rest = text.partition(":")
    kind, _, value = rest.partition(":")
    return Selector(type_, kind, value)


class Origin(StrEnum):
    """The kind of document that states an entry; it determines the form of a fix."""

    SERVER = "entry show"
    DATA = "registration file"
    STATIC = "ClusterStaticEntry"
    TEMPLATE = "ClusterSPIFFEID"
    DEVELOPMENT = "development entry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Facts of a ClusterSPIFFEID, from which the spire-controller-manager makes one entry for each pod."""

    workload_selectors: tuple[str, ...] = ()
    selects_pods: bool = False
    selects_namespaces: bool = False
    names_one_namespace: bool = False
    populates_dns_names: bool = False
    fallback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A registration entry. TTLs are in seconds, 0 is the server's default; ``expires_at`` is a Unix time, 0 is never.

    For a ClusterSPIFFEID, ``spiffe_id`` is the template, with namespace and account filled in if the object fixes
    them; ``selectors`` are those of ``workloadSelectorTemplates`` and those that its pod and namespace selectors and
    the actions in its template imply.
    """

    place: Place
    origin: Origin
    name: str  # the entry's ID or the object's name; empty if it has none
    spiffe_id: str
    parent_id: str | None
    selectors: frozenset[Selector]
    x509_svid_ttl_s: int = 0
    jwt_svid_ttl_s: int = 0
    federates_with: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    hint: str = ""
    admin: bool = False
    downstream: bool = False
    store_svid: bool = False
    expires_at: int = 0
    template: Template | None = None

    @property
    def path(self) -> str:
        """The path of the SPIFFE ID, with its slash."""
        return path_of(self.spiffe_id)

    @property
    def is_node(self) -> bool:
        """True for an alias of nodes: its parent is the server and no selector is a workload attestor's.

        An alias that a join token with an ID creates has only the selector ``spiffe_id``, under its own agent.
        """
        types = {one.type for one in self.selectors}
        if types == {"spiffe_id"}:
            return True
        return self.has_server_as_parent and bool(types) and not types & WORKLOAD_ATTESTORS

    @property
    def has_server_as_parent(self) -> bool:
        """True if the parent is the server or a whole trust domain."""
        return self.parent_id is not None and path_of(self.parent_id) in ("", _SERVER_PATH)

    @property
    def label(self) -> str:
        """Short name of this entry, for sentences about another entry."""
        if self.origin in (Origin.STATIC, Origin.TEMPLATE):
            return f"{self.origin} {self.name}"
        return f"the entry {self.name}" if self.name else f"the entry at {self.place}"

    def select(self, type_: str, *kinds: str) -> list[Selector]:
        """Return the selectors of a type with one of these kinds, sorted."""
        found = [one for one in self.selectors if one.kind in kinds and one.type == type_]
        return sorted(found) if len(found) > 1 else found

    @property
    def nodes(self) -> str:
        """Key of the nodes whose processes can match: the parent ID, or the origin if there is no parent."""
        return self.origin if self.parent_id is None else self.parent_id

    @property
    def cluster(self) -> str:
        """Key of the nodes that share this entry's ServiceAccounts: the Kubernetes cluster, else ``nodes``.

        Each node of a cluster has its own parent ID, ``/spire/agent/k8s_psat/CLUSTER/NODE``.
        """
        nodes = self.nodes
        if path_of(nodes).startswith((f"{_NODE_PATH}k8s_psat/", f"{_NODE_PATH}k8s_sat/")):
            return "/".join(nodes.split("/")[:7])
        return nodes


def path_of(spiffe_id: str) -> str:
    """Return the path of a SPIFFE ID with its leading slash; "" for a trust domain."""
    _, slash, path = spiffe_id.removeprefix(SCHEME).partition("/")
    return slash + path


def trust_domain_of(spiffe_id: str) -> str:
    """Return the trust domain of a SPIFFE ID."""
    return spiffe_id.removeprefix(SCHEME).partition("/")[0]
