from __future__ import annotations

import argparse
import sys

import pytest

from sidecar_dev.commands import demo, dev


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    dev(parser, words)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (
            ["workload-api", "--socket", "/s", "--entries", "/e", "--trust-domain", "d.example"],
            "sidecar_dev.workload_api:run",
        ),
        (["svid", "--socket", "/s", "--out", "/o"], "sidecar_dev.svid:run"),
        (["run", "--", "true"], "sidecar_dev.run:run"),
    ],
)
def test_a_command_names_what_runs_it_and_knows_its_options(words: list[str], target: str) -> None:
    assert parsed(words).target == target


def test_a_command_that_is_not_wanted_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sidecar_dev.user_issuer", raising=False)
    parsed(["run", "--", "true"])
    assert "sidecar_dev.user_issuer" not in sys.modules


def test_the_demo_takes_its_options() -> None:
    parser = argparse.ArgumentParser()
    demo(parser, [])
    found = parser.parse_args(["--json"])
    assert (found.target, found.keep, found.json) == ("sidecar_dev.demo:run", False, True)
