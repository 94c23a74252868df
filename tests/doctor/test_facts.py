from __future__ import annotations

from typing import Any

import pytest

from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.facts import facts_of
from tests.doctor.world import World, client
from tests.fakes.foreign_sts import Knobs


def facts(knobs: Knobs | None = None, **case: Any) -> dict[str, str]:
    return facts_of(World(knobs, **case).examine())


@pytest.mark.parametrize(
    ("name", "knobs", "seen"),
    [
        ("access token", Knobs(), "JWT"),
        ("access token", Knobs(opaque="opaque"), "opaque, read by introspection"),
        ("access token", Knobs(opaque="jwe", introspects=False), "JWE"),
        (
            "access token",
            Knobs(opaque="jwe", introspects=False, id_tokens=True),
            "JWE; read here: another kind of token",
        ),
        ("refresh token", Knobs(), "not issued"),
        ("refresh token", Knobs(refresh=True), "issued, too"),
        ("header typ", Knobs(), "at+jwt"),
        ("header typ", Knobs(typ=None), "none"),
        ("payload typ", Knobs(extra={"typ": "Bearer"}), "Bearer"),
        ("payload typ", Knobs(), "none"),
        ("scope claim", Knobs(), "scope, string"),
        ("scope claim", Knobs(scope_claim=("scope", "array")), "scope, array"),
        ("scope claim", Knobs(scope_claim=("scp", "array")), "scp, array"),
        ("scope claim", Knobs(scope_claim=None), "none"),
        ("client in the token", Knobs(), "client_id"),
        ("client in the token", Knobs(extra={"azp": "x"}), "client_id, azp"),
        ("shape of aud", Knobs(), "string"),
        ("shape of aud", Knobs(audience="more"), "list of 2"),
        ("shape of aud", Knobs(audience="hide"), "absent"),
        ("members of act", Knobs(act_members=("iss", "sub")), "iss, sub"),
        ("members of act", Knobs(act="none"), "none"),
        ("issuer", Knobs(), "https://foreign.example"),
        ("issuer", Knobs(extra={"iss": "https://x"}), "https://x, not the https://foreign.example of its metadata"),
        ("jti", Knobs(), "new"),
        ("jti", Knobs(extra={"jti": None}), "none or the subject's"),
        ("signature", Knobs(), "ES256, verified"),
        ("client authentication proven", Knobs(), "client_secret_basic"),
        ("refusals", Knobs(refusal=(400, "invalid_grant")), "400 invalid_grant"),
    ],
)
def test_a_form_is_told(name: str, knobs: Knobs, seen: str) -> None:
    found = facts(knobs)[name]
    assert found.startswith(seen) if name == "refusals" else found == seen


def test_a_public_client_beside_the_two_is_told() -> None:
    class Public(World):
        def answer(self, request: Any) -> Any:
            if request.client.client_id == "native":
                request = type(request)(
                    name=request.name, place=request.place, client=client("agent-a"), form=request.form
                )
            return super().answer(request)

    world = Public(more_clients=(TestClient(client_id="native", method=Method.NONE),))
    assert facts_of(world.examine())["client authentication proven"] == "client_secret_basic, none (public client)"


def test_a_public_client_may_be_known_by_an_empty_secret_alone() -> None:
    class Empty(World):
        def answer(self, request: Any) -> Any:
            if request.client.client_id == "native":
                known = request.client.method is Method.BASIC and request.client.secret == ""
                request = type(request)(
                    name=request.name, place=request.place, client=client("agent-a"), form=request.form, wrong=not known
                )
            return super().answer(request)

    world = Empty(more_clients=(TestClient(client_id="native", method=Method.NONE),))
    assert facts_of(world.examine())["client authentication proven"] == "client_secret_basic, none (public client)"


def test_without_an_exchange_only_refusals_are_told() -> None:
    assert facts(Knobs(actor="refuse", plain=False)) == {
        "client authentication proven": "none",
        "refusals": "400 invalid_request",
    }
