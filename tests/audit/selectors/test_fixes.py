from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from delegation_audit.selectors import fixes
from delegation_audit.selectors.entries import Entry, selector_of
from delegation_audit.selectors.shapes import entry_of
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
    ("value", "fix"),
    [
        (STATIC, 'spec:\n  selectors:\n    - "k8s:container-name:sidecar"\n    - "unix:uid:1111"'),
        (TEMPLATE, 'spec:\n  workloadSelectorTemplates:\n    - "k8s:x:y"\n    - "k8s:container-name:sidecar"'),
        (
            DATA,
            '"selectors": [{"type": "k8s", "value": "container-name:sidecar"}, {"type": "unix", "value": "uid:1111"}]',
        ),
    ],
)
def test_a_fix_is_written_in_the_form_of_the_document(value: Mapping[str, object], fix: str) -> None:
    assert fixes.set_selectors(entry(value), add=(fixes.CONTAINER,)) == fix


@pytest.mark.parametrize(
    ("value", "fields", "fix"),
    [
        (STATIC, {"x509_svid_ttl_s": 60, "admin": False}, "spec:\n  x509SVIDTTL: 60s\n  admin: false"),
        (TEMPLATE, {"jwt_svid_ttl_s": 60, "dns_names": ()}, "spec:\n  jwtTtl: 60s\n  dnsNameTemplates: []"),
        (DATA, {"x509_svid_ttl_s": 60, "admin": False}, '"x509_svid_ttl": 60,\n"admin": false'),
        (DEVELOPMENT, {"x509_svid_ttl_s": 60}, '"ttl_s": 60'),
    ],
)
def test_a_field_has_the_name_that_the_document_gives_it(
    value: Mapping[str, object], fields: dict[str, object], fix: str
) -> None:
    assert fixes.set_fields(entry(value), **fields) == fix


def test_a_kind_that_is_there_is_not_added_again_and_nothing_changed_is_no_fix() -> None:
    assert fixes.set_selectors(entry(in_pod("/agent/x")), add=fixes.OF_POD) == ""
    assert "-selector k8s:sa:writer" in fixes.set_selectors(
        entry(in_pod("/agent/x")), remove=[selector_of("k8s:container-name:sidecar")], add=(fixes.ACCOUNT,)
    )


@pytest.mark.parametrize("hostile", ["$(touch x)", "a b", "`id`", "'; rm -rf /; '", "a\nb", "-admin"])
def test_a_command_quotes_what_an_entry_says(hostile: str) -> None:
    command = fixes.update_command(entry(in_pod("/agent/x", f"k8s:pod-label:{hostile}", hint=hostile, id=hostile)))
    words = shlex.split(command)
    assert words[words.index("-hint") + 1] == hostile
    assert words[words.index("-entryID") + 1] == hostile
    assert f"k8s:pod-label:{hostile}" in words


def test_a_deletion_names_the_object(tmp_path: Path) -> None:
    assert fixes.deletion(entry(STATIC)) == "kubectl delete clusterstaticentry vm"
    assert fixes.deletion(entry(TEMPLATE)) == "kubectl delete clusterspiffeid agents"
    assert fixes.deletion(entry(in_pod("/agent/x", id="5f 0c"))) == "spire-server entry delete -entryID '5f 0c'"
    assert fixes.deletion(entry(DATA)) == "remove the entry at f:7"


CRON = {
    **in_pod("/agent/cron", admin=True, id="5f0c"),
    "selectors": [{"type": "unix", "value": "uid:0"}, {"type": "unix", "value": "path:/usr/bin/python3"}],
    "x509_svid_ttl": 2_592_000,
}


def test_one_command_makes_the_changes_of_several() -> None:
    one = entry(CRON)
    commands = [
        fixes.set_selectors(one, remove=one.select("unix", "uid"), add=(fixes.USER,)),
        fixes.set_fields(one, admin=False),
        fixes.set_fields(one, x509_svid_ttl_s=3600),
    ]
    words = shlex.split(fixes.merge_updates(one, commands))
    assert words[:3] == ["spire-server", "entry", "update"]
    assert "-admin" not in words
    assert words.count("-selector") == 2
    assert {"unix:uid:UID_OF_THIS_WORKLOAD_ALONE", "unix:path:/usr/bin/python3"} <= set(words)
    assert words[words.index("-x509SVIDTTL") + 1] == "3600"
    assert fixes.merge_updates(one, [fixes.update_command(one)]) == fixes.update_command(one)


def test_of_two_values_of_one_field_the_first_counts() -> None:
    one = entry(CRON)
    words = shlex.split(
        fixes.merge_updates(one, [fixes.set_fields(one, hint="first"), fixes.set_fields(one, hint="second")])
    )
    assert words.count("-hint") == 1
    assert "first" in words
