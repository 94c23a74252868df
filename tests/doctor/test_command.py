from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from sidecar.doctor.command import add_arguments, case_of, run


class Files:
    def __init__(self, folder: Path) -> None:
        for name, content in {
            "a": "secret-of-a",
            "b": "secret-of-b",
            "user": "user-token",
            "svid": "e30.e30.c2ln",
        }.items():
            (folder / name).write_text(content)
        self.folder = folder

    def words(self, *more: str, url: str = "https://login.example") -> list[str]:
        clients = [
            word
            for name in ("a", "b")
            for word in ("--client", f"agent-{name}", "client_secret_basic", str(self.folder / name))
        ]
        return [url, *clients, "--subject", str(self.folder / "user"), *more]

    def parsed(self, *more: str, **given: Any) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return parser.parse_args(self.words(*more, **given))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_options_make_the_case(files: Files) -> None:
    case = case_of(
        files.parsed(
            "--scope", "crm.read", "--wider-scope", "crm.write", "--audience", "tool", "--audience", "mail",
            "--foreign-actor", str(files.folder / "svid"), "--client", "native", "none", "--wait", "0",
            "--subject-type", "id_token",
        )
    )  # fmt: skip
    assert [one.client_id for one in (*case.clients, *case.more_clients)] == ["agent-a", "agent-b", "native"]
    assert (case.subject.value, case.subject.type) == ("user-token", "urn:ietf:params:oauth:token-type:id_token")
    assert case.foreign is not None
    assert (case.scope, case.wider, case.audiences) == ("crm.read", ("crm.write",), ("tool", "mail"))
    assert case.wait_s == 2.0  # below it, rounded times tell nothing
    assert "secret-of-a" not in repr(case)
    assert "user-token" not in repr(case)


def test_every_case_has_noise_of_its_own(files: Files) -> None:
    assert case_of(files.parsed()).noise != case_of(files.parsed()).noise


@pytest.mark.parametrize(
    ("more", "url", "told"),
    [
        ([], "http://login.example", "URL: plain http is for loopback only"),
        (["--token-endpoint", "http://login.example/x"], "https://login.example", "--token-endpoint: plain http"),
        (["--jwks", "ftp://x"], "https://login.example", "--jwks: "),
        (["--actor", "/nowhere"], "https://login.example", "/nowhere"),
        (["--client", "agent-c", "guess"], "https://login.example", "--client agent-c: the method is one of"),
    ],
)
def test_what_cannot_be_used_is_exit_code_2(
    files: Files, more: list[str], url: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files.parsed(*more, url=url)) == 2
    assert told in capsys.readouterr().err


def test_two_clients_are_needed(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = files.parsed()
    arguments.client = [arguments.client[0], arguments.client[0]]
    assert run(arguments) == 2
    assert "two clients with different IDs" in capsys.readouterr().err
