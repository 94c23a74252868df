"""Traces in settings: made from their section, and each fault with its field and fix."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from delegation_core.console.extras import install_command
from sidecar.check import check
from sidecar.config import load_sidecar, tracing_checks
from sidecar.config.document import parse_document
from tests.config.documents import changed, example, written

AGENT = example("agent")
ENDPOINT = "https://otel.acme.example:4318"


PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()


def test_the_settings_of_the_page_have_no_fault(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    section = dict(parse_document(block, name="tracing"))["tracing"]  # type: ignore[call-overload]
    assert found(tmp_path, changed(AGENT, ("tracing", section))) == []


def document(**tracing: Any) -> dict[str, Any]:
    return changed(AGENT, ("tracing", {"endpoint": ENDPOINT, **tracing}))


def found(folder: Path, settings: dict[str, Any], platform: object = None) -> list[tuple[str, str, str]]:
    ceiling = None
    if platform is not None:
        (folder / "platform").mkdir()
        ceiling = written(folder / "platform", platform)
    problems = check(written(folder, settings), {}, platform=ceiling).problems
    return [(one.field, one.wrong, one.fix) for one in problems]


def test_the_section_is_made_into_settings(tmp_path: Path) -> None:
    whole = document(
        ca="/etc/ca.pem", headers={"authorization": "/run/token"}, ratio=0.5, queue=10, timeout_s=1.0,
        subject_key="/run/key", service_name="billing", records=True, protocol="http/protobuf",
    )  # fmt: skip
    made = load_sidecar(written(tmp_path, whole), {}).tracing
    assert made is not None
    assert pickle.loads(pickle.dumps(made)) == made  # a reload loads settings in another process
    assert (made.endpoint, made.ratio, made.queue, made.records) == (ENDPOINT, 0.5, 10, True)
    assert made.headers == {"authorization": Path("/run/token")}
    assert made.subject_key == Path("/run/key")


def test_without_the_section_there_are_none(tmp_path: Path) -> None:
    assert load_sidecar(written(tmp_path, AGENT), {}).tracing is None


def test_a_change_needs_a_restart(tmp_path: Path) -> None:
    before = load_sidecar(written(tmp_path, AGENT), {})
    after = load_sidecar(written(tmp_path, document()), {})
    assert [one.field for one in before.needs_restart(after)] == ["tracing"]


@pytest.mark.parametrize(
    ("tracing", "field", "words"),
    [
        ({"endpoint": "http://otel.acme.example:4318"}, "tracing.endpoint", "plain http"),
        ({"endpoint": "https://otel.acme.example/?key=1"}, "tracing.endpoint", "query"),
        ({"endpoint": "http://127.0.0.1:4318", "ca": "/etc/ca.pem"}, "tracing.ca", "has no TLS"),
        ({"protocol": "grpc"}, "tracing.protocol", "http/protobuf"),
        ({"ratio": 1.5}, "tracing.ratio", "1"),
        ({"ratio": -0.1}, "tracing.ratio", "0"),
        ({"queue": 0}, "tracing.queue", "1"),
        ({"headers": {"Authorization": "/run/token"}}, "tracing.headers", "lower case"),
        ({"headers": {"content-type": "/run/token"}}, "tracing.headers", "cannot|can be set"),
        ({"headers": {"authorization": "Bearer x"}}, "tracing.headers", "absolute path"),
        ({"subject_key": "key"}, "tracing.subject_key", "absolute path"),
        ({"sampler": "always"}, "tracing.sampler", ""),
    ],
)
def test_a_fault_is_named(tmp_path: Path, tracing: dict[str, Any], field: str, words: str) -> None:
    ((where, wrong, fix),) = found(tmp_path, document(**tracing))
    assert where.startswith(field)
    assert any(word in f"{wrong} {fix}" for word in words.split("|"))


def test_without_the_library_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_checks, "_NEEDED", ("opentelemetry.sdk", "opentelemetry.nowhere.at_all"))
    ((where, _, fix),) = found(tmp_path, document())
    assert (where, fix) == ("tracing", install_command("otel"))


@pytest.mark.parametrize("engine", ["auto", "python", "native"])
def test_either_engine_may_be_chosen_beside_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr("sidecar.engine.native_module", object)
    assert found(tmp_path, changed(document(), ("engine", engine))) == []


@pytest.mark.parametrize(("collectors", "fine"), [([ENDPOINT], True), ([], False), (["https://b.example"], False)])
def test_a_platform_file_lists_the_collectors(tmp_path: Path, collectors: list[str], *, fine: bool) -> None:
    platform = changed(example("platform"), ("collectors", collectors))
    said = [one for one in found(tmp_path, document(), platform) if one[0].startswith("tracing")]
    assert [(where, wrong) for where, wrong, _ in said] == (
        [] if fine else [("tracing.endpoint", "is not one of the platform's collectors")]
    )
