"""Labelled entries: for each rule the weak ones, and a lawful twin that differs from them in one fact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

NOW: Final = 1_900_000_000
DIGEST: Final = "a" * 64
OTHER_DIGEST: Final = "b" * 64
NODE: Final = "/spire/agent/k8s_psat/c1/node-1"
HOST: Final = "/spire/agent/x509pop/host-1"
NAMESPACE: Final = "k8s:ns:agents"
SIDECAR: Final = "k8s:container-name:sidecar"
IMAGE: Final = f"k8s:container-image:registry.example/sidecar@sha256:{DIGEST}"
HASH: Final = f"unix:sha256:{DIGEST}"

Shown = dict[str, Any]


def shown(path: str, *selectors: str, parent: str = NODE, domain: str = "acme.example", **members: Any) -> Shown:
    """An entry as a server shows it."""
    return {
        "id": "",
        "spiffe_id": {"trust_domain": "acme.example", "path": path},
        "parent_id": {"trust_domain": domain, "path": parent},
        "selectors": [{"type": one.split(":")[0], "value": one.partition(":")[2]} for one in selectors],
        "x509_svid_ttl": 0,
        "jwt_svid_ttl": 0,
        "federates_with": [],
        "hint": "",
        "admin": False,
        "created_at": "1790000000",
        "downstream": False,
        "expires_at": "0",
        "dns_names": [],
        "revision_number": "0",
        "store_svid": False,
        **members,
    }


def in_pod(path: str, *more: str, account: str = "writer", **members: Any) -> Shown:
    """An entry for the sidecar of a pod, lawful in every respect."""
    return shown(path, NAMESPACE, f"k8s:sa:{account}", SIDECAR, IMAGE, *more, **members)


def on_host(path: str, *selectors: str, **members: Any) -> Shown:
    return shown(path, *selectors, **{"parent": HOST, **members})


def template(name: str, **spec: Any) -> Shown:
    return {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {"name": name},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class Row:
    """Entries of which those at ``broken`` break the rule and no other, and entries that break none."""

    rule: str
    weak: list[Shown]
    lawful: list[Shown]
    broken: tuple[int, ...] = (0,)


WRITER: Final = "/agent/writer"
BY_ACCOUNT: Final = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
LABELLED: Final = {"matchLabels": {"mesh": "yes"}}
ONE_NAMESPACE: Final = {"matchLabels": {"kubernetes.io/metadata.name": "agents"}}


def pair(first: tuple[str, ...], second: tuple[str, ...], second_path: str = "/tool/b", **members: Any) -> list[Shown]:
    """Two entries of one parent, of two tools unless told otherwise."""
    return [shown("/tool/a", NAMESPACE, *first), shown(second_path, NAMESPACE, *second, **members)]


def sidecars(*accounts: str) -> list[Shown]:
    """Entries of several sidecars, each with a container name of its own."""
    return [
        shown(f"/agent/{number}", NAMESPACE, f"k8s:sa:{one}", f"k8s:container-name:sidecar-{number}", IMAGE)
        for number, one in enumerate(accounts)
    ]


def under_alias(*selectors: str) -> list[Shown]:
    return [in_pod(WRITER, parent="/nodes"), shown("/nodes", *selectors, parent="/spire/server")]


def beside_sidecar(path: str) -> list[Shown]:
    return [
        in_pod(WRITER),
        shown(path, NAMESPACE, "k8s:sa:writer", "k8s:container-name:writer", IMAGE.replace("sidecar", "writer")),
    ]


ROWS: Final = (
    Row("no-selectors", [shown(WRITER)], [in_pod(WRITER)]),
    Row("agent-admin", [in_pod(WRITER, admin=True)], [in_pod("/tool/spire-controller", admin=True)]),
    Row("agent-downstream", [in_pod(WRITER, downstream=True)], [in_pod("/tool/nested", downstream=True)]),
    Row("namespace-only", [shown(WRITER, NAMESPACE)], [shown(WRITER, NAMESPACE, IMAGE)]),
    Row("namespace-only", [shown(WRITER, "k8s:node-name:n1")], [shown(WRITER, "k8s:node-name:n1", IMAGE)]),
    Row("namespace-only", [shown(WRITER, "k8s:ns-label:team:crm")], [shown(WRITER, "k8s:ns-label:team:crm", IMAGE)]),
    Row("label-only", [shown(WRITER, NAMESPACE, "k8s:pod-label:app:w")], [in_pod(WRITER, "k8s:pod-label:app:w")]),
    Row("label-only", [shown(WRITER, NAMESPACE, SIDECAR)], [shown(WRITER, NAMESPACE, SIDECAR, IMAGE)]),
    Row(
        "label-only",
        [shown(WRITER, "docker:label:app:w", "docker:env:A=1")],
        [shown(WRITER, "docker:label:app:w", f"docker:image_config_digest:sha256:{DIGEST}")],
    ),
    Row("shared-service-account", sidecars("crm", "crm"), sidecars("crm", "docs"), broken=(0, 1)),
    Row("shared-service-account", [in_pod(WRITER, account="default")], [in_pod(WRITER, account="writer")]),
    Row(
        "service-account-without-namespace",
        [shown(WRITER, "k8s:sa:writer", SIDECAR, IMAGE)],
        [shown(WRITER, NAMESPACE, "k8s:sa:writer", SIDECAR, IMAGE)],
    ),
    Row("whole-pod", [shown(WRITER, NAMESPACE, "k8s:sa:w")], [shown("/tool/w", NAMESPACE, "k8s:sa:w")]),
    Row("whole-pod", [shown(WRITER, NAMESPACE, "k8s:sa:w")], [shown(WRITER, NAMESPACE, "k8s:sa:w", SIDECAR)]),
    Row("shared-with-sidecar", beside_sidecar(WRITER), beside_sidecar("/tool/writer"), broken=(1,)),
    Row(
        "agent-entry",
        [shown(WRITER, NAMESPACE, "k8s:sa:w", "k8s:container-name:agent")],
        [shown(WRITER, NAMESPACE, "k8s:sa:w", SIDECAR)],
    ),
    Row(
        "image-tag",
        [shown("/tool/crm", NAMESPACE, "k8s:sa:crm", "k8s:container-image:registry.example:5000/crm:1.2")],
        [shown("/tool/crm", NAMESPACE, "k8s:sa:crm", f"k8s:container-image:registry.example:5000/crm@sha256:{DIGEST}")],
    ),
    Row(
        "image-tag",
        [in_pod(WRITER, "k8s:pod-image:registry.example/writer:latest")],
        [in_pod(WRITER, f"k8s:pod-image:registry.example/writer@sha256:{OTHER_DIGEST}")],
    ),
    Row("image-tag", [shown(WRITER, "docker:image_id:writer")], [shown(WRITER, f"docker:image_id:sha256:{DIGEST}")]),
    Row(
        "image-tag",
        [shown(WRITER, NAMESPACE, SIDECAR, "k8s:container-image:sidecar:1")],
        [shown(WRITER, NAMESPACE, SIDECAR, "k8s:container-image:sidecar:1", "k8s:image-signature:verified")],
    ),
    Row("root-user", [on_host(WRITER, "unix:uid:0", HASH)], [on_host(WRITER, "unix:uid:2001", HASH)]),
    Row("root-user", [on_host(WRITER, "unix:user:root")], [on_host(WRITER, "unix:user:writer")]),
    Row(
        "shared-uid",
        [on_host(WRITER, "unix:uid:2001", HASH), on_host("/agent/b", "unix:uid:2001", f"unix:sha256:{OTHER_DIGEST}")],
        [on_host(WRITER, "unix:uid:2001", HASH), on_host("/agent/b", "unix:uid:2002", f"unix:sha256:{OTHER_DIGEST}")],
        broken=(0, 1),
    ),
    Row(
        "shared-uid",
        [on_host(WRITER, "unix:uid:2001", HASH), on_host("/agent/b", "unix:uid:2001", f"unix:sha256:{OTHER_DIGEST}")],
        [
            on_host(WRITER, "unix:uid:2001", HASH),
            on_host("/agent/b", "unix:uid:2001", f"unix:sha256:{OTHER_DIGEST}", parent="/spire/agent/x509pop/host-2"),
        ],
        broken=(0, 1),
    ),
    Row("group-only", [on_host(WRITER, "unix:gid:2001")], [on_host(WRITER, "unix:gid:2001", "unix:uid:2001")]),
    Row(
        "interpreter-path",
        [on_host(WRITER, "unix:uid:2001", "unix:path:/usr/bin/python3.11", HASH)],
        [on_host(WRITER, "unix:uid:2001", "unix:path:/usr/bin/pythonista", HASH)],
    ),
    Row(
        "identical-selectors",
        pair((IMAGE,), (IMAGE,)),
        pair((IMAGE,), (IMAGE,), parent="/spire/agent/k8s_psat/c1/node-2"),
        broken=(0, 1),
    ),
    Row("duplicate-entry", pair((IMAGE,), (IMAGE,), "/tool/a"), pair((IMAGE,), (IMAGE,), "/tool/a", parent=HOST), (1,)),
    Row(
        "subset-entry",
        pair((IMAGE, "k8s:pod-label:app:a"), (IMAGE, "k8s:pod-label:app:a", "k8s:pod-label:tier:x")),
        pair((IMAGE, "k8s:pod-label:app:a"), (IMAGE, "k8s:pod-label:app:b", "k8s:pod-label:tier:x")),
    ),
    Row(
        "subset-entry",
        pair((IMAGE,), (IMAGE, "k8s:pod-label:app:a"), "/tool/a"),
        pair((IMAGE,), (IMAGE, "k8s:pod-label:app:a"), "/tool/a", parent=HOST),
    ),
    Row(
        "overlapping-entry",
        pair((IMAGE, "k8s:pod-label:app:a"), (IMAGE, "k8s:pod-label:tier:b")),
        pair((IMAGE, "k8s:pod-label:app:a"), (IMAGE, "k8s:pod-label:app:b")),
        broken=(0, 1),
    ),
    Row(
        "hint-collision",
        [on_host(WRITER, "unix:uid:2001", hint="in"), on_host("/agent/b", HASH, hint="in")],
        [on_host(WRITER, "unix:uid:2001", hint="in"), on_host("/agent/b", HASH, hint="out")],
        broken=(0, 1),
    ),
    Row("broad-parent", [in_pod(WRITER, parent="/spire/server")], [in_pod(WRITER)]),
    Row(
        "broad-parent",
        under_alias("k8s_psat:cluster:c1", "k8s_psat:agent_ns:spire"),
        under_alias("k8s_psat:cluster:c1", "k8s_psat:agent_node_uid:5f0c"),
    ),
    Row("join-token-parent", [in_pod(WRITER, parent="/spire/agent/join_token/5f0c")], [in_pod(WRITER, parent=HOST)]),
    Row(
        "join-token-parent",
        under_alias("spiffe_id:spiffe://acme.example/spire/agent/join_token/5f0c"),
        under_alias("spiffe_id:spiffe://acme.example/spire/agent/x509pop/5f0c"),
    ),
    Row("long-x509-ttl", [in_pod(WRITER, x509_svid_ttl=3601)], [in_pod(WRITER, x509_svid_ttl=3600)]),
    Row("long-x509-ttl", [in_pod(WRITER, x509_svid_ttl="90000")], [in_pod(WRITER, x509_svid_ttl="60")]),
    Row(
        "long-x509-ttl",
        [shown("/nodes", "k8s:ns:nodes", IMAGE, x509_svid_ttl=90000)],
        [shown("/nodes", "k8s_psat:cluster:c1", parent="/spire/server", x509_svid_ttl=90000)],  # no workload
    ),
    Row("long-jwt-ttl", [in_pod(WRITER, jwt_svid_ttl=901)], [in_pod(WRITER, jwt_svid_ttl=900)]),
    Row(
        "federates-with-wildcard",
        [in_pod(WRITER, federates_with=["partner.example", "*.example"])],
        [in_pod(WRITER, federates_with=["partner.example", "spiffe://b.example"])],
    ),
    Row("dns-name", [in_pod(WRITER, dns_names=["crm.acme.example"])], [in_pod("/tool/crm", dns_names=["crm"])]),
    Row("dns-name", [in_pod("/tool/crm", dns_names=["*.crm"])], [in_pod("/tool/crm", dns_names=["a.crm"])]),
    Row("store-svid", [in_pod(WRITER, store_svid=True)], [in_pod(WRITER, store_svid=False)]),
    Row("trust-domain-mismatch", [in_pod(WRITER, domain="other.example")], [in_pod(WRITER, domain="acme.example")]),
    Row("expired-entry", [in_pod(WRITER, expires_at=str(NOW))], [in_pod(WRITER, expires_at=str(NOW + 1))]),
    Row(
        "unknown-selector",
        [in_pod(WRITER, "k8s:service-account:writer")],
        [in_pod(WRITER, "k8s:pod-owner:ReplicaSet:writer")],
    ),
    Row(
        "every-pod",
        [template("t", spiffeIDTemplate=BY_ACCOUNT)],
        [template("t", spiffeIDTemplate=BY_ACCOUNT, podSelector=LABELLED)],
    ),
    Row(
        "every-pod",
        [template("t", spiffeIDTemplate=BY_ACCOUNT, podSelector={}, fallback=True)],
        [template("t", spiffeIDTemplate=BY_ACCOUNT, namespaceSelector=LABELLED, fallback=True)],
    ),
    Row(
        "template-without-service-account",
        [template("t", spiffeIDTemplate="spiffe://acme.example/crm", namespaceSelector=ONE_NAMESPACE)],
        [
            template(
                "t",
                spiffeIDTemplate="spiffe://acme.example/crm",
                namespaceSelector=ONE_NAMESPACE,
                workloadSelectorTemplates=["k8s:sa:crm"],
            )
        ],
    ),
    Row(
        "template-without-service-account",
        [
            template(
                "t",
                spiffeIDTemplate='spiffe://acme.example/{{ .PodMeta.Namespace }}/{{ index .PodMeta.Labels "app" }}',
                podSelector=LABELLED,
            )
        ],
        [
            template(
                "t",
                spiffeIDTemplate="spiffe://acme.example/{{ .PodMeta.Namespace }}/{{ .PodSpec.ServiceAccountName }}",
                podSelector=LABELLED,
            )
        ],
    ),
    Row(
        "template-without-namespace",
        [template("t", spiffeIDTemplate="spiffe://a.example/{{.PodSpec.ServiceAccountName}}", podSelector=LABELLED)],
        [
            template(
                "t",
                spiffeIDTemplate="spiffe://a.example/{{.PodSpec.ServiceAccountName}}",
                namespaceSelector=ONE_NAMESPACE,
            )
        ],
    ),
    Row(
        "populated-dns-names",
        [template("t", spiffeIDTemplate=BY_ACCOUNT, podSelector=LABELLED, autoPopulateDNSNames=True)],
        [template("t", spiffeIDTemplate=BY_ACCOUNT, podSelector=LABELLED, autoPopulateDNSNames=False)],
    ),
    Row(
        "unreadable-entry",
        [{**in_pod(WRITER), "spiffe_id": {"trust_domain": "Acme.example", "path": WRITER}}],
        [in_pod(WRITER)],
    ),
)
