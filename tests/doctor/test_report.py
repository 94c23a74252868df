from __future__ import annotations

import json

import pytest

from sidecar.doctor.cells import Value
from sidecar.doctor.report import Veil, show
from tests.doctor.world import World
from tests.fakes.foreign_sts import CLIENTS, Knobs


def printed(knobs: Knobs, capsys: pytest.CaptureFixture[str], *, as_json: bool = False, evidence: bool = True) -> str:
    world = World(knobs)
    found = world.examine()
    fits = show(found, world.log, Veil(), as_json=as_json, evidence=evidence)
    text = capsys.readouterr().out
    assert fits is ("It fits." in text or '"fits": true' in text)
    return text


def test_the_page_ends_with_settings_or_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(Knobs(), capsys)
    assert "It fits.\n" in text
    assert "\nSettings of a sidecar that fit" in text
    assert "  issuers:\n" in text
    text = printed(Knobs(actor="ignore"), capsys)
    assert "Do not use it for delegation, because\n  - " in text
    assert "For logins it fits" in text


def test_every_value_is_of_the_closed_set_and_every_cell_has_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(printed(Knobs(), capsys, as_json=True))
    assert {cell["value"] for cell in document["cells"]} <= {value.value for value in Value}
    assert all(cell["evidence"] for cell in document["cells"] if cell["value"] not in ("not tested", "no"))
    assert len(document["requests"]) > 30
    assert set(document) == {
        "token_endpoint", "issuer", "fits", "against", "open", "cautions", "settings", "cells", "facts", "requests",
    }  # fmt: skip


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(actor="ignore"), Knobs(opaque="opaque"), Knobs(bind="no")])
@pytest.mark.parametrize("as_json", [True, False])
def test_neither_page_nor_document_has_a_secret_or_a_token(
    knobs: Knobs, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(knobs)
    found = world.examine()
    show(found, world.log, Veil(), as_json=as_json, evidence=True)
    text = capsys.readouterr().out
    assert not [token for token in world.sts.known if token in text]
    assert not [secret for secret in CLIENTS.values() if secret in text]


def test_a_server_that_reflects_a_token_or_a_secret_is_veiled(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(Knobs(act_members=("sub",)))
    found = world.examine()
    claims = found.attempts["own actor token"].reading.claims
    assert isinstance(claims, dict)
    claims["act"] = {"sub": world.case.subject.value}
    claims["aud"] = "the secret is secret-of-a"
    veil = Veil()
    veil.add("secret-of-a")
    for as_json in (True, False):
        show(found, world.log, veil, as_json=as_json, evidence=True)
        text = capsys.readouterr().out
        assert world.case.subject.value not in text
        assert "secret-of-a" not in text
        assert "<secret>" in text


def test_a_short_word_is_no_secret_to_veil() -> None:
    veil = Veil()
    veil.add("sub", "longer-secret")
    assert veil.mask("sub longer-secret") == "sub <secret>"
    veil.add("secret")
    assert veil.mask("client_secret_basic: secret, (secret)") == "client_secret_basic: <secret>, (<secret>)"


@pytest.mark.parametrize("text", ["bad{}", "invalid_{}_x", "{}{}", "a {}"])
def test_a_secret_of_12_characters_is_veiled_within_other_text_too(text: str) -> None:
    secret = "secretword_0"
    veil = Veil()
    veil.add(secret, "secretword1")
    assert secret not in veil.mask(text.format(secret, secret))
    assert veil.mask("my_secretword1 secretword1") == "my_secretword1 <secret>"  # 11: whole words only


def test_a_secret_that_is_a_word_of_ours_changes_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    found = world.examine()
    veil = Veil()
    veil.add("secret", "audience")
    show(found, world.log, veil, as_json=True, evidence=False)
    cells = {cell["id"] for cell in json.loads(capsys.readouterr().out)["cells"]}
    assert {"wrong-secret", "unknown-audience"} <= cells


def test_control_characters_of_a_server_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(Knobs(extra={"typ": "\x1b[31mred"}), capsys)
    assert "\x1b" not in text
