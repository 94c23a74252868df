from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import inputs


def test_the_first_regression_of_a_tree_is_kept_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "REGRESSIONS", tmp_path / "regressions")
    assert inputs.add_regression("target", b"/\n", "a line\nbreak")
    assert not inputs.add_regression("target", b"/\n", "the same again")
    assert inputs.add_regression("target", b"/\0", "another")
    assert inputs.read_inputs(tmp_path / "regressions" / "target.txt") == [b"/\n", b"/\0"]
