"""The chart's ClusterSPIFFEIDs, judged with the selectors that SPIRE's attestor finds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from delegation_audit.selectors.examination import Result, examine
from tests.interop.cluster_entries import registrations
from tests.interop.cluster_identities import Workload, entries, workload_in
from tests.interop.engine import ROOT, require
from tests.interop.helm import helms, missing, render
from tests.interop.values import FULL_VALUES, changed, example

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

DIGEST: Final = f"sha256:{'0' * 64}"
OTHER: Final = f"sha256:{'1' * 64}"
AGENT: Final = f"registry.example/agent@{DIGEST}"
MIGRATE: Final = f"registry.example/migrate@{DIGEST}"
SIDECAR: Final = f"registry.example/sidecar@{DIGEST}"
LABELS: Final = {"delegation-sidecar.io/inject": "enabled", "kubernetes.io/metadata.name": "agents"}
IMAGE: Final = {"sidecar": {"image": {"repository": "registry.example/sidecar", "digest": DIGEST}}}
WRITER: Final = {"namespace": "agents", "serviceAccount": "writer", "images": [AGENT]}


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


def status(name: str, image: str, *, runs: bool = True) -> dict[str, Any]:
    """Return a pod's status as a kubelet reports it: for running containers tag and digest, for waiting ones the spec's
    reference.
    """
    if not runs:
        return {"name": name, "image": image, "imageID": ""}
    return {"name": name, "image": f"{image.partition('@')[0]}:dev", "imageID": image, "containerID": "containerd://x"}


def pod(
    namespace: str = "agents",
    account: str = "writer",
    *,
    agents: tuple[str, ...] = (AGENT,),
    init: tuple[str, ...] = (),
    sidecar: str = SIDECAR,
    runs: bool = True,
) -> dict[str, Any]:
    """Return a pod whose sidecar asks for an identity before its agent was ever started, unless it ``runs``."""
    plain = [status(f"agent-{at}", image, runs=runs) for at, image in enumerate(agents)]
    first = [status("sidecar", sidecar), *(status(f"init-{at}", image, runs=runs) for at, image in enumerate(init))]
    return {
        "metadata": {"namespace": namespace, "uid": "00000000-0000-0000-0000-000000000001"},
        "spec": {"serviceAccountName": account},
        "status": {"containerStatuses": plain, "initContainerStatuses": first},
    }


def ids(values: dict[str, Any], made: dict[str, Any], container: str = "sidecar", **labels: str) -> list[str]:
    """Return the SPIFFE IDs that a container gets, from the stand-in and by the entries of a SPIRE server alike."""
    found = render(with_images(values))
    assert found.objects, found.said
    named = {"kubernetes.io/metadata.name": made["metadata"]["namespace"]}
    worn, rules = {**LABELS, **named, **labels}, found.of("ClusterSPIFFEID")
    workload: Workload = workload_in(made, container, worn)
    given = [str(one.spiffe_id) for one in entries(workload, 2747, rules)]
    assert sorted(registered(rules, made, worn, workload.selectors)) == sorted(given)
    return given


def with_images(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an installation: the image that is set has an identity, unless they say which have."""
    whole = {**IMAGE, **values}
    image = whole["sidecar"]["image"]
    node = {"sidecar": "docker.io/library/sidecar", "acme/sidecar": "docker.io/acme/sidecar"}
    named = f"{node.get(image.get('repository', 'sidecar'), image.get('repository'))}@{image.get('digest', DIGEST)}"
    return {**whole, "spiffeIDs": {"images": [named], **whole.get("spiffeIDs", {})}}


def registered(
    rules: list[dict[str, Any]], made: dict[str, Any], worn: dict[str, str], attested: frozenset[str]
) -> list[str]:
    """Return the SPIFFE IDs of the entries that match, with the pod alone in the cluster."""
    namespace = {"metadata": {"name": made["metadata"]["namespace"], "labels": worn}}
    return [
        one["spiffe_id"]
        for one in registrations(rules, [made], [namespace], "spiffe://acme.example/node").values()
        if attested.issuperset(f"{selector['type']}:{selector['value']}" for selector in one["selectors"])
    ]


def bound(**workload: Any) -> dict[str, Any]:
    return {"spiffeIDs": {"enabled": True, "workloads": [{**WRITER, **workload}]}}


WRITERS: Final = ["spiffe://acme.example/ns/agents/sa/writer"]


def test_a_workload_has_its_identity_before_and_after_its_agent_starts() -> None:
    for runs in (False, True):
        assert ids(bound(), pod(runs=runs)) == WRITERS


# One fact changed: none is the writer
STRANGERS: dict[str, dict[str, Any]] = {
    "the same account in another labelled namespace": pod(namespace="other"),
    "another account": pod(account="planner"),
    "another agent": pod(agents=(f"registry.example/agent@{OTHER}",)),
    "the agent by a tag": pod(agents=("registry.example/agent:1",), runs=False),
    "a container more": pod(agents=(AGENT, AGENT)),
    "an init container more": pod(init=(MIGRATE,)),
    "another sidecar": pod(sidecar=f"registry.example/sidecar@{OTHER}"),
    "another image of that digest's name": pod(sidecar=f"evil.example/sidecar@{DIGEST}"),
}


@pytest.mark.parametrize("made", STRANGERS.values(), ids=STRANGERS)
def test_a_pod_with_one_fact_changed_is_nobody(made: dict[str, Any]) -> None:
    for runs in ("containerStatuses", "initContainerStatuses"):
        assert made["status"][runs]
    assert ids(bound(), made) == []


def test_the_agent_s_own_container_is_nobody_and_neither_is_a_pod_of_a_namespace_without_the_label() -> None:
    assert ids(bound(), pod(), "agent-0") == []
    assert ids(bound(), pod(), **{"delegation-sidecar.io/inject": "disabled"}) == []
    assert ids(bound(), pod()) == WRITERS


def test_an_agent_that_runs_the_sidecar_s_image_is_nobody_all_the_same() -> None:
    """The container's name separates them."""
    values, made = bound(images=[SIDECAR]), pod(agents=(SIDECAR,))
    assert ids(values, made, "agent-0") == []
    assert ids(values, made) == WRITERS


def test_init_containers_are_named_and_counted() -> None:
    values = bound(initImages=[MIGRATE])
    assert ids(values, pod(init=(MIGRATE,), runs=False)) == WRITERS
    assert ids(values, pod()) == []
    assert ids(values, pod(init=(AGENT,))) == []


def test_a_classic_sidecar_is_counted_among_the_containers() -> None:
    values = {**bound(), "sidecar": {**IMAGE["sidecar"], "mode": "classic"}}
    made = pod()
    made["status"]["containerStatuses"] += made["status"].pop("initContainerStatuses")
    assert ids(values, made) == WRITERS
    made["status"]["containerStatuses"].append(status("more", AGENT))
    assert ids(values, made) == []


def test_without_a_list_every_pod_with_the_platform_s_sidecar_has_the_identity_of_its_own_namespace() -> None:
    values = {"spiffeIDs": {"enabled": True}}
    for namespace in ("agents", "other"):
        assert ids(values, pod(namespace=namespace)) == [f"spiffe://acme.example/ns/{namespace}/sa/writer"]
    assert ids(values, pod(sidecar=f"registry.example/sidecar@{OTHER}")) == []


def test_while_an_upgrade_rolls_both_versions_have_their_identity_and_no_third() -> None:
    old, new, third = (f"registry.example/sidecar@sha256:{n * 64}" for n in "012")
    values = changed("spiffeIDs.images", [old, new], bound())
    assert ids(values, pod(sidecar=old)) == ids(values, pod(sidecar=new)) == WRITERS
    assert ids(values, pod(sidecar=third)) == []


def test_an_image_without_an_identity_is_refused_so_that_no_upgrade_withdraws_the_earlier_one_unsaid() -> None:
    """Without a cluster, too: a rendering by GitOps knows no earlier values."""
    old, new = (f"registry.example/sidecar@sha256:{n * 64}" for n in "01")
    for helm in helms():
        before = changed("spiffeIDs.images", [old], {**IMAGE, **bound()})
        assert render(before, helm=helm).objects
        after = changed("sidecar.image.digest", f"sha256:{'1' * 64}", before)  # and nothing else
        found = render(after, helm=helm)
        assert found.objects == []
        assert f"--set 'spiffeIDs.images={{{old},{new}}}'" in found.said  # the fix keeps the earlier one
        rolling = render(changed("spiffeIDs.images", [old, new], after), helm=helm).of("ClusterSPIFFEID")
        named = {json.dumps(one["spec"]["workloadSelectorTemplates"]) for one in rolling}
        assert [sum(f"k8s:container-image:{image}" in one for one in named) for image in (old, new)] == [1, 1]


def test_an_image_is_not_both_kept_and_withdrawn() -> None:
    values = changed("spiffeIDs.withdraw", [SIDECAR], with_images(bound()))
    assert "take it out there, too" in render(values).said
    for lawful in (["agents/writer"], [f"registry.example/sidecar@{OTHER}"]):
        assert render(changed("spiffeIDs.withdraw", lawful, with_images(bound()))).objects
    for wrong in (["writer"], ["registry.example/sidecar:1"]):
        assert "withdraw" in render(changed("spiffeIDs.withdraw", wrong, with_images(bound()))).said


def test_an_entry_is_bound_to_one_pod_with_all_selectors_and_its_federation() -> None:
    found = render(with_images(changed("spiffeIDs.federatesWith", ["partner.example"], bound())))
    rules = found.of("ClusterSPIFFEID")
    other = pod()
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000002"
    namespaces = [{"metadata": {"name": "agents", "labels": LABELS}}]
    made = registrations(rules, [pod(), other], namespaces, "spiffe://acme.example/node")
    assert len(made) == 2
    for at, one in enumerate(made.values(), 1):
        values = [selector["value"] for selector in one["selectors"]]
        assert values == [
            f"pod-uid:00000000-0000-0000-0000-00000000000{at}", "container-name:sidecar", f"container-image:{SIDECAR}",
            "ns:agents", "sa:writer", f"pod-image:{AGENT}", "pod-image-count:1", "pod-init-image-count:1",
        ]  # fmt: skip
        assert (one["parent_id"], one["federates_with"]) == ("spiffe://acme.example/node", ["spiffe://partner.example"])
    assert registrations(rules, [pod()], [], "spiffe://acme.example/node") == {}


def test_an_object_that_says_more_than_is_read_is_refused() -> None:
    (rule,) = render(with_images(bound())).of("ClusterSPIFFEID")
    rule["spec"]["dnsNameTemplates"] = ["writer"]
    with pytest.raises(AssertionError, match="dnsNameTemplates"):
        registrations([rule], [pod()], [], "spiffe://acme.example/node")


def test_a_name_without_a_registry_is_docker_hub_s_as_nodes_report_it() -> None:
    for repository, node in (("sidecar", "docker.io/library/sidecar"), ("acme/sidecar", "docker.io/acme/sidecar")):
        values = {**bound(), "sidecar": {"image": {"repository": repository, "digest": DIGEST}}}
        assert ids(values, pod(sidecar=f"{node}@{DIGEST}")) == WRITERS


def test_the_token_service_is_bound_to_its_namespace_account_and_image() -> None:
    values = yaml.safe_load((ROOT / "helm" / "sidecar" / "ci" / "sts-values.yaml").read_text())
    found = render(with_images({**values, "spiffeIDs": {"enabled": True}}))
    (rule,) = [one for one in found.of("ClusterSPIFFEID") if one["spec"]["spiffeIDTemplate"].endswith("/sts")]
    made = pod("system", "mesh-sts", agents=(SIDECAR,))
    made["metadata"]["labels"] = rule["spec"]["podSelector"]["matchLabels"]
    made["status"]["containerStatuses"][0]["name"] = "sts"
    its = {"kubernetes.io/metadata.name": "system"}
    assert [str(one.spiffe_id) for one in entries(workload_in(made, "sts", its), 2747, [rule])] == [
        "spiffe://acme.example/sts"
    ]
    for account, image in (("other", SIDECAR), ("mesh-sts", AGENT)):
        other = copy.deepcopy(made)
        other["spec"]["serviceAccountName"] = account
        other["status"]["containerStatuses"][0] |= status("sts", image)
        assert entries(workload_in(other, "sts", its), 2747, [rule]) == []


# --- refused values


TEMPLATES: Final = {
    "no namespace": "spiffe://acme.example/agent/{{ .PodSpec.ServiceAccountName }}",
    "a namespace that runs into a name": (
        "spiffe://acme.example/{{ .PodMeta.Namespace }}-{{ .PodSpec.ServiceAccountName }}"
    ),
    "the namespace of the cluster's name": "spiffe://acme.example/{{ .ClusterName }}/{{ .PodSpec.ServiceAccountName }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_without_the_namespace_is_refused(template: str) -> None:
    for helm in helms():
        said = render(with_images({"spiffeIDs": {"enabled": True, "agentTemplate": template}}), helm=helm).said
        assert "put /{{ .PodMeta.Namespace }}/ into the path" in said
    lawful = "spiffe://acme.example/agent/{{.PodMeta.Namespace}}/{{ .PodSpec.ServiceAccountName }}"
    assert render(with_images({"spiffeIDs": {"enabled": True, "agentTemplate": lawful}})).objects


UNBOUND: dict[str, tuple[dict[str, Any], str]] = {
    "an image by its tag": ({**bound(), "sidecar": {"image": {"tag": "1"}}}, "set sidecar.image.digest"),
    "an agent by its tag": (bound(images=["registry.example/agent:1"]), "images"),
    "an agent without its registry": (bound(images=[f"agent@{DIGEST}"]), "images"),
    "another version by its tag": (changed("spiffeIDs.images", ["registry.example/sidecar:2"], bound()), "IDs/images"),
    "no images at all": (bound(images=[]), "images"),
    "init containers alone": (
        changed("spiffeIDs.workloads", [{"namespace": "a", "serviceAccount": "b", "initImages": [AGENT]}], bound()),
        "name the images of its containers",
    ),
    "a workload beside the injector": (bound(namespace="system"), "give agents another"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "said"), UNBOUND.values(), ids=UNBOUND)
def test_an_identity_that_nothing_is_bound_to_is_refused(values: dict[str, Any], said: str) -> None:
    for helm in helms():
        found = render(with_images(values), helm=helm)
        assert (found.objects, said in found.said) == ([], True), found.said


# --- the example


def test_every_workload_of_the_example_is_bound_to_its_namespace_and_to_both_images() -> None:
    values = {**yaml.safe_load(example("values.yaml", SIDECAR)), **IMAGE}
    deployed = [
        one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(example("agents.yaml", SIDECAR))
        if one["kind"] == "Deployment"
    ]
    assert len(deployed) == 4
    for spec in deployed:
        account, (agent,) = spec["serviceAccountName"], spec["containers"]
        made = pod(account=account, agents=(agent["image"],), runs=False)
        assert ids(values, made) == [f"spiffe://acme.example/ns/agents/sa/{account}"]
        assert ids(values, pod("other", account, agents=(agent["image"],))) == []
        assert ids(values, pod(account=account)) == []


def test_the_example_needs_images_by_their_digest() -> None:
    values = yaml.safe_load((ROOT / "helm" / "example" / "values.yaml").read_text())
    assert "spiffeIDs" in render(with_images(values)).said


def judged(folder: Path, values: dict[str, Any], helm: str | None = None, *, digest: str = DIGEST) -> Result:
    """Judge the rendering, with another text instead of each digest."""
    found = render(values, helm=helm)
    assert found.of("ClusterSPIFFEID"), found.said
    (folder / "rendered.yaml").write_text(yaml.safe_dump_all(found.objects).replace(f"@{DIGEST}", f"@{digest}"))
    return examine([str(folder / "rendered.yaml")])


@pytest.mark.parametrize("helm", helms())
def test_the_entries_that_the_chart_makes_are_strong(helm: str, tmp_path: Path) -> None:
    agents = {**yaml.safe_load(example("values.yaml", AGENT)), **IMAGE}
    for values in (with_images(agents), FULL_VALUES, with_images(bound())):
        result = judged(tmp_path, values, helm)
        assert result.weaknesses == []
        assert {grade.strength for grade in result.grades.values()} == {"strong"}


def test_the_same_entries_without_digests_are_not(tmp_path: Path) -> None:
    result = judged(tmp_path, with_images(bound()), digest="latest")
    assert [one.rule.id for one in result.weaknesses] == ["image-tag"]
    assert {grade.strength for grade in result.grades.values()} == {"medium"}
