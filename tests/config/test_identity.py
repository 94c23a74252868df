from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.config import identity as config_identity
from sidecar.config import load_sidecar, load_sts
from sidecar.config.identity import SOCKET_VARIABLE, identity_of
from sidecar.config.sections import IdentitySection
from sidecar.identity.files import FileSettings
from sidecar.identity.source_factory import IdentitySettings
from sidecar.identity.workload_settings import WorkloadApiSettings
from tests.config.documents import ABSENT, EXAMPLES, changed, example, problems, written

SOCKET, SPIFFE_ID, STS = "unix:///run/agent.sock", "spiffe://acme.example/agent/writer", "https://sts.acme.example"


def identity(section: dict[str, Any], **environ: str) -> IdentitySettings:
    return identity_of(IdentitySection.model_validate(section), environ)


def test_the_workload_api_is_followed_by_our_own_client() -> None:
    assert identity({"workload_api": SOCKET, "hint": "x", "spiffe_id": SPIFFE_ID}) == WorkloadApiSettings(
        address=SOCKET, hint="x", spiffe_id=SpiffeId(SPIFFE_ID)
    )


def test_or_by_py_spiffe() -> None:
    settings = WorkloadApiSettings(address=SOCKET, py_spiffe=True)
    assert identity({"workload_api": SOCKET, "source": "py-spiffe"}) == settings
    assert identity({"source": "py-spiffe"}, **{SOCKET_VARIABLE: SOCKET}) == settings


def test_what_the_file_says_beats_the_variable() -> None:
    environ = {SOCKET_VARIABLE: "unix:///run/other.sock"}
    assert identity({"workload_api": SOCKET}, **environ) == WorkloadApiSettings(address=SOCKET)
    assert isinstance(identity({"files": {"layout": "cert-manager", "directory": "/x"}}, **environ), FileSettings)


LAYOUTS = {
    "cert-manager": ("tls.crt", "tls.key", "ca.crt"),
    "spiffe-helper": ("svid.pem", "svid_key.pem", "svid_bundle.pem"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_names_the_files(layout: str) -> None:
    settings = identity({"files": {"layout": layout, "directory": "/run/spiffe"}})
    assert isinstance(settings, FileSettings)
    assert tuple(str(path) for path in settings.ours) == tuple(f"/run/spiffe/{name}" for name in LAYOUTS[layout])


def test_files_may_be_named_one_by_one() -> None:
    files = {
        "certificate": "/a",
        "key": "/b",
        "bundle": "/c",
        "federated": {"b.test": "/d"},
        "jwt_svids": {STS: "/e"},
        "jwt_bundles": "/f",
        "look_every_s": 1.0,
    }
    assert identity({"files": files, "spiffe_id": SPIFFE_ID}) == FileSettings(
        certificate=Path("/a"),
        key=Path("/b"),
        bundle=Path("/c"),
        federated={TrustDomain("b.test"): Path("/d")},
        jwt_svids={STS: Path("/e")},
        jwt_bundles=Path("/f"),
        spiffe_id=SpiffeId(SPIFFE_ID),
        look_every_s=1.0,
    )


def test_settings_can_be_handed_from_process_to_process() -> None:
    settings = load_sidecar(EXAMPLES / "files.yaml", {}).identity
    assert pickle.loads(pickle.dumps(settings)) == settings


DIRECTORY = {"layout": "cert-manager", "directory": "/x"}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, {"identity.workload_api"}),
    "files and the Workload API": ({"files": DIRECTORY, "workload_api": SOCKET}, {"identity.workload_api"}),
    "files and py-spiffe": ({"files": DIRECTORY, "source": "py-spiffe"}, {"identity.source"}),
    "files and a hint": ({"files": DIRECTORY, "hint": "x"}, {"identity.hint"}),
    "py-spiffe and a hint": ({"workload_api": SOCKET, "source": "py-spiffe", "hint": "x"}, {"identity.hint"}),
    "py-spiffe over TCP": (
        {"workload_api": "tcp://127.0.0.1:8081", "source": "py-spiffe"},
        {"identity.workload_api"},
    ),
    "no files": ({"files": {}}, {f"identity.files.{name}" for name in ("certificate", "key", "bundle")}),
    "a certificate alone": ({"files": {"certificate": "/x"}}, {"identity.files.key", "identity.files.bundle"}),
    "a directory without layout": ({"files": {"directory": "/x"}}, {"identity.files.layout"}),
    "a layout without directory": ({"files": {"layout": "cert-manager"}}, {"identity.files.directory"}),
    "a layout and a file": ({"files": DIRECTORY | {"key": "/k"}}, {"identity.files.key"}),
    "one file twice": ({"files": {"certificate": "/x", "key": "/y", "bundle": "/x"}}, {"identity.files"}),
    "one file for two trust domains": (
        {"files": DIRECTORY | {"federated": {"b.test": "/x/ca.crt"}}},
        {"identity.files"},
    ),
    "an unknown layout": ({"files": DIRECTORY | {"layout": "vault"}}, {"identity.files.layout"}),
    "a relative path": ({"files": DIRECTORY | {"directory": "x"}}, {"identity.files.directory"}),
    "a SPIFFE ID for a trust domain": (
        {"files": DIRECTORY | {"federated": {"spiffe://b.test": "/b"}}},
        {"identity.files.federated.spiffe://b.test"},
    ),
    "looks too rare for a withdrawal": ({"files": DIRECTORY | {"look_every_s": 60.0}}, {"identity.files.look_every_s"}),
    "another source": ({"workload_api": SOCKET, "source": "go-spiffe"}, {"identity.source"}),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_an_identity_from_nowhere_or_from_two_places_is_refused_with_its_fix(case: str, tmp_path: Path) -> None:
    section, fields = CONTRADICTIONS[case]
    found = problems(tmp_path, changed(example("tool"), ("identity", section), ("outbound", None)))
    assert {problem.field for problem in found} == fields
    assert all(problem.fix for problem in found)


def test_py_spiffe_that_is_not_installed_is_told_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_identity, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as refused:
        identity({"workload_api": SOCKET, "source": "py-spiffe"})
    (problem,) = refused.value.problems
    assert problem.field == "identity.source"
    assert "pip install ./core '.[spiffe]'" in problem.fix
    identity({"workload_api": SOCKET})


@pytest.mark.parametrize("audiences", [{}, {"https://other.example": "/e"}])
def test_an_exchange_needs_a_jwt_svid_among_the_files(audiences: dict[str, str], tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(example("files"), ("identity.files.jwt_svids", audiences)))
    assert problem.field == "identity.files.jwt_svids"
    assert STS in problem.wrong
    assert "spiffe-helper" in problem.fix


def test_without_an_exchange_no_jwt_svid_is_needed(tmp_path: Path) -> None:
    files = {"spiffe_id": SPIFFE_ID, "files": DIRECTORY}
    settings = load_sidecar(written(tmp_path, changed(example("tool"), ("identity", files))), {})
    assert settings.exchanges == ()


def test_a_token_service_needs_jwt_bundles_among_the_files(tmp_path: Path) -> None:
    document = changed(example("sts"), ("identity", {"files": DIRECTORY}))
    (problem,) = problems(tmp_path, document, sts=True)
    assert problem.field == "identity.files.jwt_bundles"
    document = changed(document, ("identity.files", DIRECTORY | {"jwt_bundles": "/x/jwt_bundle.json"}))
    assert isinstance(load_sts(written(tmp_path, document), {}).identity, FileSettings)


def test_the_example_is_what_the_documentation_says(tmp_path: Path) -> None:
    document = changed(example("files"), ("identity.spiffe_id", ABSENT))
    settings = load_sidecar(written(tmp_path, document), {}).identity
    assert isinstance(settings, FileSettings)
    assert settings.federated.keys() == {"partner.example"}
    assert settings.jwt_svids.keys() == {STS}
