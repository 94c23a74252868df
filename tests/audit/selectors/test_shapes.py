from __future__ import annotations

from typing import Any

import pytest

from delegation_audit.selectors.entries import Entry, Origin, selector_of
from delegation_audit.selectors.members import ShapeError
from delegation_audit.selectors.shapes import entry_of, is_entry, makes, partner_of, pieces_of
from tests.audit.selectors.labelled import BY_ACCOUNT, in_pod, shown, template

DATA = {
    "selectors": [{"type": "unix", "value": "uid:1111"}],
    "spiffe_id": "spiffe://a.example/agent/x",
    "parent_id": "spiffe://a.example/spire/agent/x509pop/h",
    "x509_svid_ttl": 200,
    "jwt_svid_ttl": 30,
    "entryExpiry": 5,
    "admin": True,
    "hint": "internal",
}
STATIC = {
    "apiVersion": "spire.spiffe.io/v1alpha1",
    "kind": "ClusterStaticEntry",
    "metadata": {"name": "vm"},
    "spec": {
        "spiffeID": "spiffe://a.example/agent/x",
        "parentID": "spiffe://a.example/spire/agent/x509pop/h",
        "selectors": ["unix:uid:1111"],
        "x509SVIDTTL": "1h30m",
        "jwtSVIDTTL": "300s",
        "admin": True,
        "storeSVID": True,
        "hint": "internal",
        "dnsNames": ["x"],
    },
}
DEVELOPMENT = {"spiffe_id": "spiffe://a.example/agent/x", "selectors": {"uid": 1111, "socket": "/run/x"}, "ttl_s": 60}


def entry(value: dict[str, Any]) -> Entry:
    assert is_entry(value)
    return entry_of(value, file="f", line=7)


def test_an_entry_of_a_server_is_read() -> None:
    read = entry(
        in_pod(
            "/agent/x",
            id="5f0c",
            x509_svid_ttl=60,
            expires_at="1900000000",
            federates_with=["b.example"],
            dns_names=["x"],
            hint="in",
            downstream=True,
            additional_attributes=None,
        )
    )
    assert (read.origin, read.name, read.spiffe_id) == (Origin.SERVER, "5f0c", "spiffe://acme.example/agent/x")
    assert read.parent_id == "spiffe://acme.example/spire/agent/k8s_psat/c1/node-1"
    assert (read.x509_svid_ttl_s, read.expires_at, read.hint, read.downstream) == (60, 1_900_000_000, "in", True)
    assert selector_of("k8s:sa:writer") in read.selectors
    assert (read.federates_with, read.dns_names) == (("b.example",), ("x",))
    assert read.place.object == "entry 5f0c spiffe://acme.example/agent/x"


def test_names_of_members_as_grpc_tools_write_them_are_read() -> None:
    written = {
        "spiffeId": {"trustDomain": "acme.example", "path": "/agent/x"},
        "parentId": {"trustDomain": "acme.example", "path": "/n"},
        "selectors": [{"type": "unix", "value": "uid:1"}],
        "x509SvidTtl": 7200,
        "storeSvid": True,
        "dnsNames": ["x"],
    }
    read = entry(written)
    assert (read.spiffe_id, read.parent_id) == ("spiffe://acme.example/agent/x", "spiffe://acme.example/n")
    assert (read.x509_svid_ttl_s, read.store_svid, read.dns_names) == (7200, True, ("x",))


@pytest.mark.parametrize(
    "written",
    [
        {"spiffe_id": "spiffe://a.example/x", "selectors": ["k8s:ns:a"], "x509_svid_ttl": "2h", "store_svid": True},
        {"spiffeID": "spiffe://a.example/x", "selectors": ["k8s:ns:a"], "x509SVIDTTL": "7200", "storeSVID": True},
        {"spiffeId": "spiffe://a.example/x", "selectors": ["k8s:ns:a"], "x509SvidTtl": 7200, "storeSvid": "true"},
    ],
)
def test_a_manifest_that_people_write_is_read(written: dict[str, Any]) -> None:
    read = entry(written)
    assert read.spiffe_id == "spiffe://a.example/x"
    assert read.selectors == {selector_of("k8s:ns:a")}
    assert (read.x509_svid_ttl_s, read.store_svid, read.origin) == (7200, True, Origin.DATA)


def test_an_entry_that_lost_its_id_is_a_fault_and_not_another_object() -> None:
    without = shown("/agent/x", "unix:uid:1")
    del without["spiffe_id"]
    with pytest.raises(ShapeError, match="spiffe_id is not a valid SPIFFE ID"):
        entry(without)


def test_the_answer_to_entry_create_is_read() -> None:
    made = {"entry": in_pod("/agent/x"), "status": {"code": 0, "message": "OK"}}
    assert entry(made) == entry(in_pod("/agent/x"))


def test_a_registration_file_is_read() -> None:
    read = entry(DATA)
    assert (read.origin, read.spiffe_id) == (Origin.DATA, "spiffe://a.example/agent/x")
    assert (read.x509_svid_ttl_s, read.jwt_svid_ttl_s, read.expires_at, read.admin) == (200, 30, 5, True)
    assert read.selectors == {selector_of("unix:uid:1111")}


def test_a_static_entry_is_read() -> None:
    read = entry(STATIC)
    assert (read.origin, read.name, read.x509_svid_ttl_s, read.jwt_svid_ttl_s) == (Origin.STATIC, "vm", 5400, 300)
    assert (read.admin, read.store_svid, read.dns_names) == (True, True, ("x",))
    assert read.place.object == "ClusterStaticEntry vm"


def test_an_entry_for_development_is_read() -> None:
    read = entry(DEVELOPMENT)
    assert (read.origin, read.x509_svid_ttl_s, read.parent_id) == (Origin.DEVELOPMENT, 60, None)
    assert read.selectors == {selector_of("unix:uid:1111"), selector_of("dev:socket:/run/x")}


def test_a_template_stands_for_what_it_selects() -> None:
    read = entry(
        template(
            "agents",
            spiffeIDTemplate=BY_ACCOUNT,
            podSelector={"matchLabels": {"app": "x"}},
            namespaceSelector={
                "matchLabels": {"kubernetes.io/metadata.name": "agents", "team": "crm"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}],
            },
            workloadSelectorTemplates=["k8s:container-name:sidecar"],
            ttl="10m",
        )
    )
    assert read.spiffe_id == "spiffe://{{ .TrustDomain }}/ns/agents/sa/{{ .PodSpec.ServiceAccountName }}"
    assert {str(one) for one in read.selectors} == {
        "k8s:container-name:sidecar",
        "k8s:ns:agents",
        "k8s:ns-label:team:crm",
        "k8s:ns-label:tier:a",
        "k8s:pod-label:app:x",
        "k8s:sa:{{ .PodSpec.ServiceAccountName }}",
    }
    assert read.x509_svid_ttl_s == 600
    assert read.template is not None
    assert read.template.workload_selectors == ("k8s:container-name:sidecar",)
    assert (read.template.selects_pods, read.template.selects_namespaces) == (True, True)


@pytest.mark.parametrize(
    "changed",
    [
        {"spiffe_id": {"trust_domain": "A.example", "path": "/x"}},
        {"spiffe_id": {"trust_domain": "a.example", "path": ""}},
        {"spiffe_id": {"trust_domain": "a.example", "path": "/x/"}},
        {"spiffe_id": {"trust_domain": "a.example", "path": 1}},
        {"spiffe_id": 1},
        {"spiffe_id": None},
        {"parent_id": "node"},
        {"parent_id": {"trust_domain": "a/b", "path": ""}},
        {"selectors": "unix:uid:1"},
        {"selectors": ["unix"]},
        {"selectors": ["unix:"]},
        {"selectors": [7]},
        {"selectors": [f"unix:user:{'x' * 5000}"]},
        {"selectors": [{"type": "unix"}]},
        {"selectors": [{"type": "", "value": "uid:1"}]},
        {"x509_svid_ttl": "1d"},
        {"x509_svid_ttl": -1},
        {"x509_svid_ttl": True},
        {"jwt_svid_ttl": 1.5},
        {"dns_names": "x"},
        {"federates_with": [1]},
        {"admin": {}},
        {"hint": 1},
        {"id": 1},
        {"selectors": [{"type": "unix", "value": f"uid:{number}"} for number in range(257)]},
        {"dns_names": ["x"] * 257},
        {"hint": "x" * 4097},
    ],
)
def test_a_member_of_another_type_is_a_fault_that_quotes_nothing(changed: dict[str, object]) -> None:
    with pytest.raises(ShapeError) as refused:
        entry({**shown("/agent/x", "unix:uid:1"), **changed})
    assert "A.example" not in str(refused.value)
    assert next(iter(changed)) in str(refused.value) or "selector" in str(refused.value)


@pytest.mark.parametrize("written", [True, "true", "yes", "on", "True", 1])
def test_every_spelling_of_true_grants(written: object) -> None:
    assert entry(in_pod("/agent/x", admin=written)).admin


@pytest.mark.parametrize("written", [False, "false", "no", None, "", 0])
def test_every_spelling_of_false_does_not(written: object) -> None:
    assert not entry(in_pod("/agent/x", admin=written)).admin


@pytest.mark.parametrize(
    ("written", "seconds"), [("1h", 3600), ("1h0m1s", 3601), ("90m", 5400), ("1.5h", 5400), ("1500ms", 2), ("0s", 0)]
)
def test_a_duration_is_read_as_go_writes_it(written: str, seconds: int) -> None:
    made = template("t", spiffeIDTemplate="spiffe://a.example/x", ttl=written)
    assert entry(made).x509_svid_ttl_s == seconds


@pytest.mark.parametrize("written", ["1", "h", "1d", "1h 5m", "-1h", 5, ""])
def test_another_duration_is_a_fault(written: object) -> None:
    with pytest.raises(ShapeError, match="ttl is not a duration"):
        entry(template("t", spiffeIDTemplate="spiffe://a.example/x", ttl=written))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"spiffeIDTemplate": "https://a.example/x"},
        {"spiffeIDTemplate": "spiffe://a.example/x", "podSelector": []},
        {"spiffeIDTemplate": "spiffe://a.example/x", "podSelector": {"matchLabels": []}},
        {"spiffeIDTemplate": "spiffe://a.example/x", "podSelector": {"matchExpressions": [{}]}},
        {"spiffeIDTemplate": "spiffe://a.example/x", "podSelector": {"matchLabels": {"a": ["b"]}}},
        {
            "spiffeIDTemplate": "spiffe://a.example/x",
            "podSelector": {"matchExpressions": [{"key": "a", "values": [{}]}]},
        },
    ],
)
def test_a_broken_template_is_a_fault(spec: dict[str, object]) -> None:
    with pytest.raises(ShapeError):
        entry(template("t", **spec))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"kind": "Deployment", "apiVersion": "apps/v1"},
        {"kind": "ClusterSPIFFEID", "apiVersion": "example.com/v1"},
        {"kind": "ClusterFederatedTrustDomain", "apiVersion": "spire.spiffe.io/v1alpha1"},
    ],
)
def test_other_objects_state_no_entry(value: object) -> None:
    assert not is_entry(value)


def test_a_partner_is_read_from_its_manifest() -> None:
    assert partner_of({"kind": "ClusterFederatedTrustDomain", "spec": {"trustDomain": "b.example"}}) == "b.example"
    assert partner_of({"kind": "ClusterFederatedTrustDomain", "spec": {"trustDomain": 1}}) is None
    assert partner_of({"kind": "ClusterSPIFFEID", "spec": {"trustDomain": "b.example"}}) is None


@pytest.mark.parametrize(
    ("template_of", "made", "not_made"),
    [
        (
            "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}",
            ["spiffe://a.example/ns/agents"],
            [
                "spiffe://a.example/ns/agents/sa/x",
                "spiffe://a/example/ns/agents",
                "spiffe://a.example/ns/",
                "ns/agents",
            ],
        ),
        (
            'spiffe://a.example/x-{{ index .PodMeta.Labels "a/b" }}-{{ .PodMeta.Name }}-y',
            ["spiffe://a.example/x-1-2-y", "spiffe://a.example/x-1-2-3-y"],
            [
                "spiffe://a.example/x-1-y",
                "spiffe://a.example/x--2-y",
                "spiffe://a.example/x-1--y",
                "spiffe://a/x-1-2-y",
            ],
        ),
        ("spiffe://a.example/{{ .A }}{{ .B }}", ["spiffe://a.example/ab"], ["spiffe://a.example/a"]),
        ("spiffe://a.example/a", ["spiffe://a.example/a"], ["spiffe://a.example/ab"]),
    ],
)
def test_a_template_stands_for_the_ids_that_it_can_make(template_of: str, made: list[str], not_made: list[str]) -> None:
    pieces = pieces_of(template_of)
    assert [makes(pieces, one) for one in made] == [True] * len(made)
    assert [makes(pieces, one) for one in not_made] == [False] * len(not_made)


def test_a_template_of_many_actions_costs_no_more_than_its_length() -> None:
    pieces = pieces_of("spiffe://a.example/" + "{{.A}}-" * 500 + "x")
    assert not makes(pieces, f"spiffe://a.example/{'-' * 2000}")  # a regular expression would not end
