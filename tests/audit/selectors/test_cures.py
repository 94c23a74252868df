from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.audit.selectors import cures
from sidecar.audit.selectors.entries import Entry, selector_of
from sidecar.audit.selectors.shapes import entry_of
from tests.audit.selectors.labelled import BY_ACCOUNT, in_pod, template
from tests.audit.selectors.test_shapes import DATA, DEVELOPMENT, STATIC

TEMPLATE = template(
    "agents",
    spiffeIDTemplate=BY_ACCOUNT,
    podSelector={"matchLabels": {"a": "b"}},
    workloadSelectorTemplates=["k8s:x:y"],
)


def entry(value: Mapping[str, object]) -> Entry:
    return entry_of(value, file="f", line=7)


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (STATIC, 'spec:\n  selectors:\n    - "k8s:container-name:sidecar"\n    - "unix:uid:1111"'),
        (TEMPLATE, 'spec:\n  workloadSelectorTemplates:\n    - "k8s:x:y"\n    - "k8s:container-name:sidecar"'),
        (
            DATA,
            '"selectors": [{"type": "k8s", "value": "container-name:sidecar"}, {"type": "unix", "value": "uid:1111"}]',
        ),
    ],
)
def test_a_cure_is_written_in_the_form_of_the_document(value: Mapping[str, object], cure: str) -> None:
    assert cures.with_selectors(entry(value), add=(cures.CONTAINER,)) == cure


@pytest.mark.parametrize(
    ("value", "fields", "cure"),
    [
        (STATIC, {"x509_svid_ttl_s": 60, "admin": False}, "spec:\n  x509SVIDTTL: 60s\n  admin: false"),
        (TEMPLATE, {"jwt_svid_ttl_s": 60, "dns_names": ()}, "spec:\n  jwtTtl: 60s\n  dnsNameTemplates: []"),
        (DATA, {"x509_svid_ttl_s": 60, "admin": False}, '"x509_svid_ttl": 60,\n"admin": false'),
        (DEVELOPMENT, {"x509_svid_ttl_s": 60}, '"ttl_s": 60'),
    ],
)
def test_a_field_has_the_name_that_the_document_gives_it(
    value: Mapping[str, object], fields: dict[str, object], cure: str
) -> None:
    assert cures.changed(entry(value), **fields) == cure


def test_a_kind_that_is_there_is_not_added_again_and_nothing_changed_is_no_cure() -> None:
    assert cures.with_selectors(entry(in_pod("/agent/x")), add=cures.OF_POD) == ""
    assert "-selector k8s:sa:writer" in cures.with_selectors(
        entry(in_pod("/agent/x")), remove=[selector_of("k8s:container-name:sidecar")], add=(cures.ACCOUNT,)
    )


@pytest.mark.parametrize("hostile", ["$(touch x)", "a b", "`id`", "'; rm -rf /; '", "a\nb", "-admin"])
def test_a_command_quotes_what_an_entry_says(hostile: str) -> None:
    command = cures.update_command(entry(in_pod("/agent/x", f"k8s:pod-label:{hostile}", hint=hostile, id=hostile)))
    words = shlex.split(command)
    assert words[words.index("-hint") + 1] == hostile
    assert words[words.index("-entryID") + 1] == hostile
    assert f"k8s:pod-label:{hostile}" in words


def test_a_deletion_names_the_object(tmp_path: Path) -> None:
    assert cures.deletion(entry(STATIC)) == "kubectl delete clusterstaticentry vm"
    assert cures.deletion(entry(TEMPLATE)) == "kubectl delete clusterspiffeid agents"
    assert cures.deletion(entry(in_pod("/agent/x", id="5f 0c"))) == "spire-server entry delete -entryID '5f 0c'"
    assert cures.deletion(entry(DATA)) == "remove the entry at f:7"
