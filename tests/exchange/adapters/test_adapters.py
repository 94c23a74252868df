from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import pytest

from delegation_core.errors import Reason
from sidecar.exchange import adapters
from sidecar.exchange.adapters import BUILT_IN, find_adapter, names
from sidecar.exchange.adapters.adapter import Adapter, ClientAuth
from sidecar.exchange.adapters.rfc8693 import ADAPTER
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import ExchangeSettings
from tests.exchange.world import World, plan, policy, reason_of, route, running
from tests.fakes.lying_sts import Form, LyingSts, Reply
from tests.fakes.tokens import ISSUER, WRITER, encode


def installed(monkeypatch: pytest.MonkeyPatch, *values: tuple[str, str]) -> None:
    """Let distributions register these names and values."""
    points = EntryPoints(EntryPoint(name, value, adapters.GROUP) for name, value in values)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **wanted: points.select(**wanted))


def test_the_page_shows_the_adapter_of_another_distribution() -> None:
    page = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text()
    shown = (Path(__file__).parent / "invented.py").read_text()
    assert shown in page
    assert len(shown.splitlines()) < 100


async def test_an_adapter_from_elsewhere_gets_a_token_that_is_proven_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, ("invented-1", "tests.exchange.adapters.invented:ADAPTER"))

    def answer(sts: LyingSts, form: Form) -> Reply:
        if form["grant_type"] == "urn:example:ticket":
            assert form["client_assertion"].count(".") == 2
            return Reply(body=encode({"access_token": "ticket", "token_type": "Bearer", "expires_in": 600}))
        assert form["ticket"] == "ticket"
        lawful = sts.claims({**form, "subject_token": form["user_token"], "audience": form["target"]}, **changes)
        members = sts.members(form, sts.mint.mint(lawful))
        return Reply(body=encode({name: members[name] for name in ("access_token", "token_type", "expires_in")}))

    auth = ClientAuthSettings(method=ClientAuth.JWT_SVID, audience=ISSUER)
    async with running(World(adapter="invented-1", client_auth=auth)) as world:
        world.sts.behaviour, changes = answer, {}
        issued = await world.exchange.exchange(plan(), policy())
        assert issued.permit.token.actor_id == WRITER
        changes = {"sub": "user-4712"}
        assert await reason_of(world, plan(route(scopes=("docs.read",)))) is Reason.STS_SUBJECT_MISMATCH
        assert [form["grant_type"] for form in world.sts.forms].count("urn:example:ticket") == 1


def test_a_built_in_adapter_is_found_by_its_name_and_no_distribution_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, ("rfc8693", "tests.exchange.adapters.nowhere:ADAPTER"))
    assert find_adapter("rfc8693") is ADAPTER


def test_another_distribution_registers_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ("invented-1", "tests.exchange.adapters.invented:ADAPTER"))
    assert find_adapter("invented-1").name == "invented-1"
    assert "invented-1" in names()


@pytest.mark.parametrize(
    ("registered", "why"),
    [
        ([], "choose one of .*rfc8693"),
        ([("x-1", "tests.exchange.adapters.invented:ADAPTER")] * 2, "several distributions"),
        ([("x-1", "tests.exchange.adapters.nowhere:ADAPTER")], "cannot be loaded .ModuleNotFoundError"),
        ([("x-1", "tests.exchange.adapters.invented:exchange")], "is not an Adapter of this name"),
        ([("x-1", "tests.exchange.adapters.invented:ADAPTER")], "is not an Adapter of this name"),
    ],
)
def test_no_adapter_is_found_by_guessing(
    registered: list[tuple[str, str]], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *registered)
    with pytest.raises(ValueError, match=why):
        find_adapter("x-1")


@pytest.mark.parametrize("adapter", BUILT_IN.values(), ids=BUILT_IN.keys())
def test_each_adapter_says_how_it_authenticates_and_completes_its_own_options(adapter: Adapter) -> None:
    assert adapter.client_auth
    needed = dict.fromkeys(adapter.required_options, "x")
    assert adapter.complete(needed).keys() == adapter.options.keys()
    assert adapter.needs_jwt_svid(adapter.complete(needed)) in (True, False)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"actor": "jwt-svid"}, r"options: rfc8693 has no option actor; it has actor_token, target"),
        ({"target": "aud"}, r"options: target must be one of audience, resource"),
    ],
)
def test_an_option_that_the_adapter_does_not_know_is_refused(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ADAPTER.complete(options)


def test_an_option_of_free_text_takes_any() -> None:
    free = replace(ADAPTER, options={"tenant": ("",)})
    assert free.complete({"tenant": "acme"}) == {"tenant": "acme"}


@pytest.mark.parametrize("options", [{}, {"tenant": ""}])
def test_an_option_that_the_adapter_cannot_do_without_is_asked_for(options: dict[str, str]) -> None:
    choosy = replace(ADAPTER, options={"tenant": ("",)}, required_options=("tenant",))
    assert choosy.complete({"tenant": "acme"}) == {"tenant": "acme"}
    with pytest.raises(ValueError, match="options: rfc8693 needs tenant"):
        choosy.complete(options)


def _settings(**settings: object) -> ExchangeSettings:
    return ExchangeSettings(issuer=ISSUER, token_endpoint="http://127.0.0.1/token", **settings)  # type: ignore[arg-type]


def test_settings_are_held_against_what_the_adapter_says(monkeypatch: pytest.MonkeyPatch) -> None:
    choosy = replace(ADAPTER, client_auth=(ClientAuth.JWT_SVID,))
    monkeypatch.setattr("sidecar.exchange.sts_settings.find_adapter", lambda _name: choosy)
    with pytest.raises(ValueError, match="client_auth: rfc8693 does not support x509-svid; use one of jwt-svid"):
        _settings()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="endpoints: rfc8693 asks at none"):
        _settings(endpoints={"idp": SimpleNamespace()})
