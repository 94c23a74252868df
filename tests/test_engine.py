from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar import engine


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
    with pytest.raises(LookupError, match="is not installed for this Python"):
        engine.engine_of("native")
    with pytest.raises(LookupError):
        engine.require_native()


@pytest.mark.parametrize(("version", "fits"), [(engine._VERSION, True), ("0.0.9", False), (None, False)])
def test_a_wheel_of_another_version_is_not_used(
    monkeypatch: pytest.MonkeyPatch, version: str | None, fits: bool
) -> None:
    module = SimpleNamespace() if version is None else SimpleNamespace(__version__=version)

    def found(_name: str) -> Any:
        return module

    monkeypatch.setattr(engine, "import_module", found)
    found_module: object = engine.native_module.__wrapped__()
    assert (found_module is module) is fits
