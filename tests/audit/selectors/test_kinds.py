import pytest

from delegation_audit.selectors.entries import Selector, selector_of
from delegation_audit.selectors.kinds import digest_of, is_broad_node, is_interpreter, repository_of, slot_of


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/python3.11",
        "/usr/local/bin/python",
        "/opt/venv/bin/python3",
        "/usr/bin/node",
        "/usr/lib/jvm/java-21/bin/java",
        "/bin/bash",
        "/bin/sh",
        "/usr/bin/ruby3.2",
        "/usr/bin/env",
        "/docker-entrypoint.sh",
        "/sbin/tini",
        "python3.13t",
        "C:\\Python311\\python.exe",
    ],
)
def test_a_program_that_runs_others_is_an_interpreter(path: str) -> None:
    assert is_interpreter(path)


@pytest.mark.parametrize(
    "path", ["/usr/bin/sidecar", "/opt/agent/writer", "/usr/bin/pythonista", "/bin/node-exporter", "/python/app", ""]
)
def test_a_program_of_its_own_is_none(path: str) -> None:
    assert not is_interpreter(path)


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("image", "digest", "repository"),
    [
        (f"registry:5000/a/b@sha256:{DIGEST}", DIGEST, "registry:5000/a/b"),
        (f"a:1@sha256:{DIGEST}", DIGEST, "a"),
        (f"sha256:{DIGEST}", DIGEST, "sha256"),
        (DIGEST, DIGEST, DIGEST),
        ("registry:5000/a/b:1.2", None, "registry:5000/a/b"),
        ("a", None, "a"),
        (f"a@sha256:{DIGEST[1:]}", None, "a"),
        (f"a@sha256:{DIGEST}0", None, "a"),
        ("a@sha512:00", None, "a"),
        ("", None, ""),
    ],
)
def test_only_a_whole_sha256_is_a_digest(image: str, digest: str | None, repository: str) -> None:
    assert digest_of(image) == digest
    assert repository_of(image) == repository


@pytest.mark.parametrize(
    ("one", "other", "exclude"),
    [
        ("k8s:sa:a", "k8s:sa:b", True),
        ("k8s:sa:a", "k8s:sa:a", False),
        ("k8s:pod-label:app:a", "k8s:pod-label:app:b", True),
        ("k8s:pod-label:app:a", "k8s:pod-label:tier:b", False),
        ("docker:env:A=1", "docker:env:A=2", True),
        (f"k8s:container-image:a@sha256:{DIGEST}", f"k8s:container-image:b@sha256:{DIGEST}", False),
        (f"k8s:container-image:a@sha256:{DIGEST}", f"k8s:container-image:a@sha256:{'1' * 64}", True),
        (f"k8s:container-image:a@sha256:{DIGEST}", "k8s:container-image:a:1", False),
        ("unix:uid:1", "unix:uid:2", True),
        ("k8s:pod-image:a", "k8s:pod-image:b", False),
        ("unix:supplementary_gid:1", "unix:supplementary_gid:2", False),
    ],
)
def test_values_of_one_property_exclude_each_other(one: str, other: str, exclude: bool) -> None:
    first, second = slot_of(selector_of(one)), slot_of(selector_of(other))
    assert (first is not None and second is not None and first[0] == second[0] and first[1] != second[1]) is exclude


def test_a_node_alias_is_broad_if_every_selector_is() -> None:
    broad = [selector_of("k8s_psat:cluster:c"), selector_of("k8s_psat:agent_sa:spire")]
    assert is_broad_node(broad)
    assert not is_broad_node([*broad, selector_of("k8s_psat:agent_node_uid:1")])
    assert not is_broad_node([selector_of("aws_iid:instance:id:i-1")])
    assert is_broad_node([selector_of("aws_iid:region:eu-west-1")])


def test_the_value_of_a_selector_may_hold_colons() -> None:
    assert selector_of("k8s:pod-label:app:a:b") == Selector("k8s", "pod-label", "app:a:b")
    assert str(selector_of("k8s:pod-label:app:a:b")) == "k8s:pod-label:app:a:b"
    assert str(selector_of("x509pop:fingerprint")) == "x509pop:fingerprint"
