from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar import engine
from sidecar.cli import main

GOOD = Path(__file__).parent.parent / "config" / "agent.yaml"


def _installed(monkeypatch: pytest.MonkeyPatch, module: object | None) -> None:
    monkeypatch.setattr(engine, "native_module", lambda: module)


def test_auto_is_the_native_engine_where_its_wheel_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, object())
    assert engine.engine_of("auto") == "native"
    assert engine.engine_of("python") == "python"
    assert engine.engine_of("native") == "native"


def test_without_the_wheel_auto_is_python_and_native_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, None)
    assert engine.engine_of("auto") == "python"
    assert engine.engine_of("python") == "python"
    with pytest.raises(ConfigError) as refused:
        engine.engine_of("native")
    (problem,) = refused.value.problems
    assert (problem.field, problem.fix) == ("engine", "install the wheel (make native), or set engine: auto")
    with pytest.raises(LookupError):
        engine.require_native()


@pytest.mark.parametrize("asks", [True, False])
def test_check_tells_that_the_native_engine_is_asked_for_and_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], asks: bool
) -> None:
    _installed(monkeypatch, None)
    path = tmp_path / "sidecar.yaml"
    path.write_text(f"{GOOD.read_text()}\nengine: {'native' if asks else 'auto'}\n")
    assert main(["check", str(path)]) == (2 if asks else 0)
    assert ("engine: is native, and the wheel" in capsys.readouterr().err) is asks


@pytest.mark.parametrize(
    ("version", "interface", "lacking", "fits"),
    [
        (engine._VERSION, engine._INTERFACE, "", True),
        ("0.0.9", engine._INTERFACE, "", False),
        (None, engine._INTERFACE, "", False),
        (engine._VERSION, engine._INTERFACE - 1, "", False),
        (engine._VERSION, None, "", False),
        *((engine._VERSION, engine._INTERFACE, name, False) for name in engine._CALLED),
    ],
)
def test_a_wheel_of_another_version_or_an_older_build_is_not_used(
    monkeypatch: pytest.MonkeyPatch, version: str | None, interface: int | None, lacking: str, fits: bool
) -> None:
    names: dict[str, object] = dict.fromkeys(name for name in engine._CALLED if name != lacking)
    told = {"__version__": version, "INTERFACE": interface}
    module = SimpleNamespace(**names, **{name: value for name, value in told.items() if value is not None})

    def found(_name: str) -> Any:
        return module

    monkeypatch.setattr(engine, "import_module", found)
    found_module: object = engine.native_module.__wrapped__()
    assert (found_module is module) is fits


def test_each_name_that_is_used_of_the_wheel_is_among_those_that_it_must_have() -> None:
    """Else an older build of the same version would end the start of a sidecar, instead of leaving all to Python."""
    source = "".join(path.read_text() for path in Path(engine.__file__).parent.rglob("*.py"))
    used = set(re.findall(r"\b(?:_?native|require_native\(\))\.([A-Z]\w+|link)\b", source))
    assert used >= {"Finished", "InboundGate", "Kind", "Prepared", "link"}
    assert used <= set(engine._CALLED)
