"""Kinds of settings files: each is told by its keys, and one that could be two is refused."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from delegation_core.errors import ConfigError
from sidecar.cli import main
from sidecar.config.kinds import NAMES, Kind, keys_of, kind_of
from tests.config.documents import EXAMPLES, written

INCLUDED = {EXAMPLES / "many-agents"}
FILES = sorted(path for path in (*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("*/*.yaml")) if path.parent not in INCLUDED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_ours_is_known_by_its_keys(path: Path) -> None:
    name = path.stem.partition("-")[0]
    expected = name if name in {"sts", "platform"} else "sidecar"
    assert kind_of(path, {}) == expected


@pytest.mark.parametrize("kind", NAMES)
def test_each_kind_has_keys_that_no_other_has(kind: Kind) -> None:
    others = frozenset[str]().union(*(keys_of(other) for other in NAMES if other != kind))
    for key in keys_of(kind) - others:
        assert kind_of_text(f"{{{key}: null}}") == kind
    assert len(keys_of(kind) - others) > 5


def kind_of_text(text: str, **environ: str) -> Kind:
    with TemporaryDirectory() as folder:
        return kind_of(written(Path(folder), text), environ)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("{inbuond: {}}", "sidecar", id="misspelt"),
        pytest.param("{inbound: {}, outbound: {}, targets: []}", "sidecar", id="a-key-of-another"),
        pytest.param("{deny: [], identity: {}}", "sidecar", id="one-is-enough"),
        pytest.param("{login_issuers: [], identity: {}}", "sts", id="shared-keys-of-one-kind"),
        pytest.param("{issuers: [], login_issuers: []}", "platform", id="shared-keys-of-another"),
    ],
)
def test_the_kind_is_that_of_most_keys(text: str, kind: str) -> None:
    assert kind_of_text(text) == kind


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        pytest.param("", ["sidecar", "sts", "platform"], id="empty"),
        pytest.param("{identity: {}}", ["sidecar", "sts"], id="shared"),
        pytest.param("{issuers: []}", ["sidecar", "platform"], id="issuers"),
        pytest.param("{inbound: {}, targets: []}", ["sidecar", "sts"], id="of-both"),
        pytest.param("{nonsense: 1}", ["sidecar", "sts", "platform"], id="of-none"),
    ],
)
def test_a_file_that_could_be_several_kinds_is_refused(text: str, kinds: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        kind_of_text(text)
    (problem,) = refused.value.problems
    assert problem.fix == f"say which by {' or '.join(f'--kind {kind}' for kind in kinds)}"


def test_the_environment_tells_where_the_file_does_not() -> None:
    assert kind_of_text("", SIDECAR__OUTBOUND__LISTEN="127.0.0.1:0") == "sidecar"
    assert kind_of_text("{identity: {}}", SIDECAR__TARGETS="[]") == "sts"
    assert kind_of_text("{passthrough: []}", SIDECAR__INBOUND__NETWORK="pod", SIDECAR__DENY="[]") == "platform"


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        ({"apiVersion": "v1", "kind": "ConfigMap", "data": {}}, "is an object of Kubernetes, not settings"),
        ({"entries": [{"spiffe_id": "spiffe://acme.example/a"}]}, "holds entries of SPIRE"),
        ({"$schema": "a", "properties": {}}, "is a JSON Schema, not settings"),
        ({"event": "started", "run": "a", "seq": 1}, "is a record, not settings"),
        ([1], "is not a mapping"),
    ],
)
def test_a_file_of_another_sort_is_named(document: object, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=wrong):
        kind_of(written(tmp_path, document), {})


# The command


@pytest.mark.parametrize(
    ("name", "kind"),
    [("agent", "sidecar"), ("sts", "sts"), ("platform", "platform")],
    ids=["sidecar", "sts", "platform"],
)
def test_check_says_which_kind_it_read(name: str, kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / f"{name}.yaml"
    for words in ([], ["--kind", kind]):
        assert main(["check", str(path), *words]) == 0
        assert capsys.readouterr().out == f"{path}: fine ({NAMES[kind]})\n"
    assert main(["check", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(path), "kind": kind, "problems": [], "notes": []}


@pytest.mark.parametrize("words", [["--sts"], ["--kind", "sts"], ["--kind", "platform"]])
def test_the_option_that_names_the_kind_counts(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXAMPLES / "agent.yaml"), *words]) == 2
    told = capsys.readouterr().err
    assert NAMES["sts" if "platform" not in words else "platform"] in told
    assert "  inbound: is not a setting" in told


def test_a_platform_s_problem_has_its_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, {"passthrough": ["https://chat.example"], "linger_s": 5})
    assert main(["check", str(path)]) == 2
    told = capsys.readouterr().err
    assert f"{path}: 1 problem (ceiling of a platform)\n  passthrough[0]: " in told


def test_a_file_whose_kind_is_not_told_is_a_problem_until_an_option_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, {"issuers": []})
    assert main(["check", "--json", str(path)]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["problems"][0]["fix"]) == (
        None,
        "say which by --kind sidecar or --kind platform",
    )
    assert main(["check", "--kind", "platform", str(path)]) == 0


@pytest.mark.parametrize("name", ["sts", "platform"])
def test_only_a_sidecar_has_a_ceiling(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ceiling = str(EXAMPLES / "platform.yaml")
    assert main(["check", "--platform", ceiling, str(EXAMPLES / f"{name}.yaml")]) == 2
    assert "  --platform: is not a ceiling of a" in capsys.readouterr().err


def test_two_words_for_the_kind_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--sts", "--kind", "platform", "x.yaml"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_the_schema_of_each_kind_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in NAMES:
        assert main(["check", "--schema", "--kind", kind]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((EXAMPLES / f"{kind}.schema.json").read_text())
