from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_audit.rules import Severity, Weakness
from delegation_audit.selectors.agents import Agents
from delegation_audit.selectors.entry_checks import MAX_SHOWN
from tests.audit.selectors.labelled import DIGEST, HASH, WRITER, Shown, in_pod, on_host, shown, template
from tests.audit.selectors.test_rulebook import judged


def found(folder: Path, entry: Shown, **options: Any) -> dict[str, Weakness]:
    return {one.rule.id: one for one in judged(folder, [entry], **options).weaknesses}


def test_a_partner_that_nobody_stated_is_reported_once_partners_are_stated(tmp_path: Path) -> None:
    entry = in_pod(WRITER, federates_with=["b.example", "c.example"])
    assert found(tmp_path, entry) == {}
    assert found(tmp_path, entry, partners=["b.example", "c.example"]) == {}
    one = found(tmp_path, entry, partners=["b.example"])["federates-with-unknown"]
    assert one.text.endswith("c.example is not among the partners")
    assert "-federatesWith spiffe://b.example" in one.fix
    assert "c.example" not in one.fix


def test_a_manifest_of_a_partner_states_it(tmp_path: Path) -> None:
    partner = {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterFederatedTrustDomain",
        "spec": {"trustDomain": "b.example"},
    }
    result = judged(tmp_path, [partner, in_pod(WRITER, federates_with=["b.example", "c.example"])])
    assert [one.rule.id for one in result.weaknesses] == ["federates-with-unknown"]


def test_a_stated_trust_domain_is_expected_of_every_entry(tmp_path: Path) -> None:
    assert found(tmp_path, in_pod(WRITER), trust_domain="acme.example") == {}
    assert list(found(tmp_path, in_pod(WRITER), trust_domain="b.example")) == ["trust-domain-mismatch"]
    templated = template("t", spiffeIDTemplate="spiffe://{{ .TrustDomain }}/{{ .PodMeta.Namespace }}/crm")
    assert "trust-domain-mismatch" not in found(tmp_path, templated, trust_domain="b.example")


@pytest.mark.parametrize("rule", ["agent-admin", "agent-downstream", "dns-name"])
def test_the_agents_are_those_that_were_stated(rule: str, tmp_path: Path) -> None:
    entry = in_pod("/bots/x", admin=True, downstream=True, dns_names=["x"])
    assert found(tmp_path, entry) == {}
    assert rule in found(tmp_path, entry, agents=Agents(["/bots/*"]))


def test_a_wildcard_or_a_day_is_worse(tmp_path: Path) -> None:
    assert found(tmp_path, in_pod(WRITER, dns_names=["*.example"]))["dns-name"].severity is Severity.HIGH
    assert found(tmp_path, in_pod(WRITER, dns_names=["a.example"]))["dns-name"].severity is Severity.MEDIUM
    assert found(tmp_path, in_pod(WRITER, x509_svid_ttl=86401))["long-x509-ttl"].severity is Severity.HIGH
    assert found(tmp_path, in_pod(WRITER, x509_svid_ttl=86400))["long-x509-ttl"].severity is Severity.MEDIUM


def test_all_tagged_images_are_one_weakness_with_one_fix(tmp_path: Path) -> None:
    entry = in_pod(WRITER, "k8s:pod-image:a:1", "k8s:pod-image:b:1", f"k8s:pod-image:c@sha256:{DIGEST}")
    [one] = judged(tmp_path, [entry]).weaknesses
    assert one.text.endswith("k8s:pod-image:a:1 is not a digest, and 1 more")
    assert "-selector k8s:pod-image:a@sha256:DIGEST -selector k8s:pod-image:b@sha256:DIGEST" in one.fix
    assert f"-selector k8s:pod-image:c@sha256:{DIGEST}" in one.fix


def test_an_entry_as_long_as_its_author_likes_gets_no_fix_as_long(tmp_path: Path) -> None:
    entry = in_pod(WRITER, *(f"k8s:pod-label:{at}:{'x' * 1000}" for at in range(100)), admin=True)
    [one] = judged(tmp_path, [entry]).weaknesses
    assert len(one.fix) < 200
    assert len(one.facts["selectors"]) <= MAX_SHOWN


def test_a_tag_beside_the_digest_of_the_same_image_is_pinned(tmp_path: Path) -> None:
    images = ("k8s:container-image:sidecar:1", f"k8s:container-image:sidecar@sha256:{DIGEST}")
    assert found(tmp_path, shown(WRITER, "k8s:ns:a", *images)) == {}
    assert "image-tag" in found(tmp_path, shown(WRITER, "k8s:ns:a", images[0].replace("sidecar", "b"), images[1]))


@pytest.mark.parametrize(
    ("entry", "rule", "command"),
    [
        (
            on_host(WRITER, "unix:uid:2001", "unix:path:/usr/bin/python3", HASH, id="5f0c", hint="it's"),
            "interpreter-path",
            "spire-server entry update -entryID 5f0c -parentID spiffe://acme.example/spire/agent/x509pop/host-1"
            " -spiffeID spiffe://acme.example/agent/writer -selector unix:uid:2001 -hint 'it'\"'\"'s'",
        ),
        (
            in_pod(WRITER, admin=True, x509_svid_ttl=60, dns_names=[], federates_with=["b.example"]),
            "agent-admin",
            "spire-server entry update -entryID ENTRY_ID -parentID spiffe://acme.example/spire/agent/k8s_psat/c1/node-1"
            " -spiffeID spiffe://acme.example/agent/writer"
            f" -selector k8s:container-image:registry.example/sidecar@sha256:{DIGEST}"
            " -selector k8s:container-name:sidecar -selector k8s:ns:agents -selector k8s:sa:writer -x509SVIDTTL 60"
            " -federatesWith spiffe://b.example",
        ),
        (in_pod(WRITER, id="5f0c", expires_at="1"), "expired-entry", "spire-server entry delete -entryID 5f0c"),
    ],
)
def test_the_fix_is_a_command_that_keeps_all_the_rest(entry: Shown, rule: str, command: str, tmp_path: Path) -> None:
    assert found(tmp_path, entry)[rule].fix.split("\n")[1:] == [command]


def test_a_fingerprint_survives_other_entries_and_another_line(tmp_path: Path) -> None:
    entry = in_pod(WRITER, admin=True)
    alone = judged(tmp_path, [entry]).weaknesses[0]
    second = judged(tmp_path, [in_pod("/tool/crm", account="crm"), entry]).weaknesses[0]
    assert (alone.fingerprint, alone.place.line, second.place.line) == (second.fingerprint, 1, 2)


def test_a_sentence_names_three_and_counts_the_rest(tmp_path: Path) -> None:
    for count, named in ((3, "a0, a1, a2"), (4, "a0, a1, a2 and 1 more")):
        entry = in_pod(WRITER, dns_names=[f"a{at}" for at in range(count)])
        assert found(tmp_path, entry)["dns-name"].text.endswith(f"names {named}")


def test_without_a_command_the_fix_is_the_rule_s(tmp_path: Path) -> None:
    one = found(tmp_path, in_pod(WRITER, "k8s:service-account:x"))["unknown-selector"]
    assert one.fix == one.rule.fix
