"""Sentences and fixes of rules that entries break together, and the edges of what counts as together."""

from __future__ import annotations

from pathlib import Path

from tests.audit.selectors.labelled import IMAGE, NAMESPACE, SIDECAR, WRITER, Shown, in_pod, on_host, shown
from tests.audit.selectors.test_rulebook import judged

LABEL = "k8s:pod-label:app:a"


def found(folder: Path, *entries: Shown) -> list[tuple[str, str]]:
    """Rule and sentence of each weakness, without the identity that the sentence begins with."""
    return [(one.rule.id, one.text.partition(": ")[2]) for one in judged(folder, entries).weaknesses]


def test_a_part_of_another_entry_names_it_and_counts_the_rest(tmp_path: Path) -> None:
    wide, narrow = shown("/tool/a", NAMESPACE, IMAGE), shown("/tool/b", NAMESPACE, IMAGE, LABEL, id="5f0c")
    more = shown("/tool/c", NAMESPACE, IMAGE, "k8s:pod-label:app:c")
    sentence = "each process of spiffe://acme.example/tool/b (the entry 5f0c) gets this identity too"
    assert found(tmp_path, wide, narrow) == [("subset-entry", sentence)]
    assert found(tmp_path, wide, narrow, more) == [("subset-entry", f"{sentence}, and 1 more")]


def test_the_same_identity_for_less_makes_the_stricter_entry_vain(tmp_path: Path) -> None:
    wide, narrow = shown("/tool/a", NAMESPACE, IMAGE), shown("/tool/a", NAMESPACE, IMAGE, LABEL, id="5f0c")
    assert found(tmp_path, wide, narrow) == [
        ("subset-entry", "the entry 5f0c requires more, in vain: this entry grants the same identity for less")
    ]


def test_equal_selectors_are_duplicates_of_one_identity_and_a_choice_of_two(tmp_path: Path) -> None:
    one, same, other = (shown(path, NAMESPACE, IMAGE) for path in ("/tool/a", "/tool/a", "/tool/b"))
    assert [rule for rule, _ in found(tmp_path, one, same)] == ["duplicate-entry"]
    assert [rule for rule, _ in found(tmp_path, one, other)] == ["identical-selectors"] * 2
    assert [rule for rule, _ in found(tmp_path, one, same, other)] == ["identical-selectors"] * 3


def test_an_account_is_shared_on_all_nodes_of_a_cluster_and_not_beyond(tmp_path: Path) -> None:
    def entry(number: int, parent: str) -> Shown:
        name = f"k8s:container-name:sidecar-{number}"
        return shown(f"/agent/{number}", NAMESPACE, "k8s:sa:crm", name, IMAGE, parent=f"/spire/agent/k8s_psat/{parent}")

    assert [rule for rule, _ in found(tmp_path, entry(1, "c1/n1"), entry(2, "c1/n2"))] == ["shared-service-account"] * 2
    assert found(tmp_path, entry(1, "c1/n1"), entry(2, "c2/n1")) == []


def test_an_agent_and_its_own_sidecar_may_have_one_account_and_two_agents_may_not(tmp_path: Path) -> None:
    own = IMAGE.replace("sidecar", "writer")
    agent = shown("/tool/writer", NAMESPACE, "k8s:sa:writer", "k8s:container-name:writer", own)
    assert found(tmp_path, in_pod(WRITER), agent) == []
    other = shown("/tool/planner", NAMESPACE, "k8s:sa:writer", "k8s:container-name:planner", own)
    assert {rule for rule, _ in found(tmp_path, in_pod(WRITER), other)} == {"shared-service-account"}
    # Three of one name, one of them a sidecar: the other two share.
    second = shown("/other/writer", NAMESPACE, "k8s:sa:writer", "k8s:container-name:b", own)
    assert [rule for rule, _ in found(tmp_path, in_pod(WRITER), agent, second)] == ["shared-service-account"] * 2


def test_the_example_of_a_shared_user_is_another_identity(tmp_path: Path) -> None:
    first, second = (on_host(f"/tool/{name}", "unix:uid:7", f"unix:sha256:{name * 64}", id=name) for name in "ab")
    assert found(tmp_path, first, second) == [
        ("shared-uid", "unix:uid:7 is also required by the entry b of spiffe://acme.example/tool/b"),
        ("shared-uid", "unix:uid:7 is also required by the entry a of spiffe://acme.example/tool/a"),
    ]


def test_a_downstream_server_is_registered_under_the_server(tmp_path: Path) -> None:
    nested = in_pod("/tool/nested", parent="/spire/server", downstream=True, x509_svid_ttl=86400)
    assert found(tmp_path, nested) == []
    assert [rule for rule, _ in found(tmp_path, {**nested, "downstream": False})] == ["broad-parent", "long-x509-ttl"]


def test_a_whole_trust_domain_is_no_node(tmp_path: Path) -> None:
    assert [rule for rule, _ in found(tmp_path, in_pod(WRITER, parent=""))] == ["broad-parent"]


def test_a_fix_that_changes_nothing_is_not_printed(tmp_path: Path) -> None:
    full = shown("/tool/a", NAMESPACE, "k8s:sa:a", SIDECAR, IMAGE)
    half = shown("/tool/b", NAMESPACE, LABEL, IMAGE)
    fixes = {one.facts["spiffe_id"]: one.fix for one in judged(tmp_path, [full, half]).weaknesses}
    assert "\n" not in fixes["spiffe://acme.example/tool/a"]
    assert "-selector k8s:sa:SERVICE_ACCOUNT" in fixes["spiffe://acme.example/tool/b"]


def test_what_one_entry_breaks_by_itself_is_not_reported_again(tmp_path: Path) -> None:
    accounts = [
        shown(f"/tool/{name}", NAMESPACE, "k8s:sa:default", f"k8s:container-name:{name}", IMAGE) for name in "ab"
    ]
    assert [rule for rule, _ in found(tmp_path, *accounts)] == ["shared-service-account"] * 2
    roots = [on_host(f"/tool/{name}", "unix:uid:0", f"unix:sha256:{name * 64}") for name in "ab"]
    assert [rule for rule, _ in found(tmp_path, *roots)] == ["root-user"] * 2


def test_a_narrower_entry_is_proposed_in_the_words_of_its_attestor(tmp_path: Path) -> None:
    for attestor, added in (
        ("unix:gid", "unix:uid:UID_OF_THIS_WORKLOAD_ALONE"),
        ("docker:label", "docker:image_id:REGISTRY/NAME@sha256:DIGEST"),
    ):
        wide = shown("/tool/a", f"{attestor}:1", "systemd:id:x", parent="/spire/agent/x509pop/h")
        narrow = shown("/tool/b", f"{attestor}:1", "systemd:id:x", "vendor:a:b", parent="/spire/agent/x509pop/h")
        [one] = judged(tmp_path, [wide, narrow]).weaknesses
        assert f"-selector {added}" in one.fix
