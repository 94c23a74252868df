from __future__ import annotations

import argparse
from typing import Any

import pytest

from sidecar.revoke import add_arguments, claims_of, run

NOW = 1_790_000_000
TO = ["--to", "https://127.0.0.1:1", "--peer", "spiffe://acme.example/sts"]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([*words, *TO])


def claims(*words: str) -> dict[str, object]:
    return claims_of(parsed(*words), now=NOW, name="id-1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--txn", "t", "--for", "8h"], {"action": "revoke", "kind": "txn", "value": "t", "until": NOW + 28_800}),
        (["--txn=-t", "--for", "8h"], {"kind": "txn", "value": "-t"}),  # of another token service
        (["--jti", "j", "--for", "30m"], {"kind": "jti", "value": "j", "until": NOW + 1800}),
        (["--actor", "spiffe://a/b", "--for", "7d"], {"kind": "actor", "value": "spiffe://a/b"}),
        (
            ["--subject", "https://i", " -s", "--for", "8h"],
            {"kind": "subject", "of_issuer": "https://i", "value": "-s"},
        ),
        (["--login", "https://i", " -s", "--for", "8h"], {"kind": "login", "of_issuer": "https://i", "value": "-s"}),
        (["--login", "https://i", "s", "--for", "5s"], {"kind": "login", "of_issuer": "https://i", "value": "s"}),
        (["--subject", "https://i", "u", "--for", "1h"], {"kind": "subject", "value": "u", "alone": False}),
        (["--subject", "https://i", "u", "--for", "1h", "--alone"], {"kind": "subject", "alone": True}),
        (["--confirm", "x"], {"action": "confirm", "of": "x"}),
        (["--lift", "x"], {"action": "lift", "of": "x"}),
    ],
)
def test_the_options_say_what_is_ordered(words: list[str], expected: dict[str, Any]) -> None:
    made = claims(*words, "--reason", "INC-42")
    assert made | expected == made
    assert (made["jti"], made["iat"], made["reason"]) == ("id-1", NOW, "INC-42")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--txn", "t", "--for", "8h"], id="without a reason"),
        pytest.param(["--txn", "t", "--reason", "r"], id="without an end"),
        pytest.param(["--txn", "t", "--reason", "r", "--for", "8"], id="an end without a unit"),
        pytest.param(["--txn", "t", "--reason", "r", "--for", "8h", "--alone"], id="alone without a user"),
        pytest.param(["--lift", "x", "--reason", "r", "--for", "8h"], id="a lift with an end"),
        pytest.param(
            ["--txn", "t", "--reason", "r", "--for", "8h", "--svid", "a.pem"], id="a certificate without a key"
        ),
    ],
)
def test_an_order_that_says_too_little_or_too_much_is_not_sent(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parsed(*words)) == 2
    assert "sidecar sts revoke: --" in capsys.readouterr().err
