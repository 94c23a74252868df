from __future__ import annotations

from pathlib import Path

import pytest

from delegation_audit.selectors.grades import Strength
from tests.audit.selectors.labelled import (
    DIGEST,
    HASH,
    IMAGE,
    NAMESPACE,
    SIDECAR,
    WRITER,
    Shown,
    in_pod,
    on_host,
    shown,
)
from tests.audit.selectors.test_rulebook import judged

ID = f"spiffe://acme.example{WRITER}"


@pytest.mark.parametrize(
    ("entry", "strength", "reason"),
    [
        (in_pod(WRITER), "strong", "the image by digest, and the namespace"),
        (shown(WRITER, IMAGE), "medium", "the image by digest, in any namespace"),
        (shown(WRITER, NAMESPACE, "k8s:image-signature:verified"), "strong", "a verified signature of the image"),
        (shown(WRITER, NAMESPACE, "k8s:sa:w", SIDECAR), "medium", "namespace and ServiceAccount"),
        (shown(WRITER, "k8s:pod-uid:5f0c"), "medium", "one pod"),
        (shown(WRITER, NAMESPACE), "weak", "only the namespace"),
        (shown(WRITER, NAMESPACE, SIDECAR), "weak", "only labels or names"),
        (on_host(WRITER, "unix:uid:2001", HASH), "strong", "a user of its own, and the hash of its program"),
        (on_host(WRITER, "unix:uid:2001", "unix:path:/opt/w"), "medium", "a user of its own, and the path"),
        (on_host(WRITER, "unix:uid:2001", "unix:path:/bin/python3", HASH), "medium", "a user of its own"),
        (on_host(WRITER, "unix:path:/bin/python3"), "weak", "an interpreter"),
        (on_host(WRITER, HASH), "medium", "the hash of its program, run by any user"),
        (on_host(WRITER, "unix:path:/opt/w"), "medium", "the path of its program"),
        (on_host(WRITER, "unix:uid:0", HASH), "weak", "the user is root"),
        (shown(WRITER, f"docker:image_id:sha256:{DIGEST}"), "strong", "the image by digest"),
        (shown(WRITER, "docker:image-signature:verified"), "strong", "a verified signature"),
        (shown(WRITER, "docker:label:app:w"), "weak", "only labels or names"),
        (shown(WRITER, "docker:image_id:w:1"), "weak", "only values that whoever starts"),
        (shown(WRITER, "systemd:id:writer.service"), "medium", "a unit"),
        (shown(WRITER, "vendor:x:y"), "medium", "an attestor unknown to this audit"),
        (in_pod(WRITER, parent="/spire/agent/join_token/x"), "medium", "but: the node was attested by a join token"),
        (in_pod(WRITER, store_svid=True), "weak", "the SVID and its key are written to a store"),
        (shown(WRITER), "weak", "An entry without selectors"),
    ],
)
def test_an_identity_is_graded_by_what_proves_its_workload(
    entry: Shown, strength: str, reason: str, tmp_path: Path
) -> None:
    grade = judged(tmp_path, [entry]).grades[ID]
    assert (grade.strength, reason in grade.reason) == (strength, True), grade


def test_an_identity_is_as_strong_as_its_weakest_entry(tmp_path: Path) -> None:
    grades = judged(
        tmp_path, [in_pod(WRITER), shown(WRITER, "k8s:ns:other"), in_pod("/tool/crm", account="crm")]
    ).grades
    assert {name: one.strength for name, one in grades.items()} == {
        ID: Strength.WEAK,
        "spiffe://acme.example/tool/crm": Strength.STRONG,
    }


def test_a_shared_user_is_weak_however_strong_the_hash_is(tmp_path: Path) -> None:
    other = on_host("/agent/b", "unix:uid:2001", f"unix:sha256:{'b' * 64}")
    assert judged(tmp_path, [on_host(WRITER, "unix:uid:2001", HASH), other]).grades[ID].strength is Strength.WEAK


def test_an_alias_of_nodes_is_no_workload(tmp_path: Path) -> None:
    assert judged(tmp_path, [shown("/nodes", "k8s_psat:cluster:c", parent="/spire/server")]).grades == {}
