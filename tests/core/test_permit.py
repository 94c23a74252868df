from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from delegation_core import permit as permit_module
from delegation_core.errors import Reason
from delegation_core.permit import IssuedPermit, ObservedPermit, OwnPermit, Permit, TunnelPermit
from tests.core.test_decide import accept, inbound
from tests.sources import PACKAGES, python_files


def test_only_a_decision_makes_a_permit() -> None:
    permit, issued_permit = inbound(), accept()
    for seal in (None, object(), True, "seal"):
        with pytest.raises(TypeError):
            Permit(seal, permit.token, permit.peer, permit.route, "delegated")
        with pytest.raises(TypeError):
            IssuedPermit(seal, issued_permit.token, issued_permit.plan)


KINDS: list[tuple[Any, dict[str, object]]] = [
    (Permit, {"token": None, "peer": None, "route": None, "mode": "self"}),
    (IssuedPermit, {"token": None, "plan": None}),
    (OwnPermit, {"delegation": None, "route": None, "method": "GET", "path": "/", "ends_at": 1}),
    (ObservedPermit, {"route": None, "reason": Reason.NO_TOKEN, "peer": None, "token": None, "ends_at": 1}),
    (TunnelPermit, {"delegation": None, "route": None}),
]


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_every_kind_of_permit_needs_the_seal(kind: Any, fields: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="only a decision"):
        kind(object(), **fields)


def test_a_permit_has_no_other_kinds() -> None:
    for kind, _ in KINDS:
        with pytest.raises(TypeError):
            type("Forged", (kind,), {"__module__": __name__, "__init__": lambda self: None})


@pytest.mark.parametrize("name", ["token", "peer", "route", "mode", "other"])
def test_a_permit_does_not_change(name: str) -> None:
    permit = inbound()
    with pytest.raises(AttributeError):
        setattr(permit, name, getattr(permit, name, None))
    with pytest.raises(AttributeError):
        delattr(permit, name)


def test_a_permit_is_not_copied_or_pickled() -> None:
    for permit in (inbound(), accept()):
        for store in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                store(permit)


def test_a_permit_shows_no_token() -> None:
    permit = inbound()
    assert permit.token.raw not in repr(permit)
    assert permit.token.raw not in repr(permit.token)


def test_the_seal_is_no_public_name() -> None:
    assert all(name.startswith("_") for name, value in vars(permit_module).items() if type(value) is object)


def test_only_the_decision_takes_the_seal() -> None:
    room = Path(permit_module.__file__).parent
    naming = {path for path in python_files(*PACKAGES) if re.search(r"\b_SEAL\b", path.read_text())}
    assert naming == {room / "permit.py", room / "decide.py"}
