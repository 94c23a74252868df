from __future__ import annotations

import dataclasses

import pytest

from sidecar.identity.source import IdentitySource, State
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from tests.identity.fixed_source import FixedSource, identity_of
from tests.identity.shapes import authority, leaf

ROOT = authority("root a")
SELF = "spiffe://a.test/self"


def test_a_generation_cannot_be_changed_and_shows_no_key() -> None:
    own = leaf(ROOT, SELF)
    identity = identity_of([own], SELF, {"a.test": [ROOT]})
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.number = 2  # type: ignore[misc]
    assert repr(own.key_der) not in repr(identity)
    assert "PRIVATE" not in repr(identity)


def test_the_workload_api_is_an_identity_source() -> None:
    source: IdentitySource = WorkloadApiSource(WorkloadApiSettings(address="unix:///run/agent.sock"))
    assert source.state is State.STARTING
    assert source.current is None
    assert source.last_error is None
    assert source.jwt_bundles == {}


def test_the_tests_own_source_is_one_too() -> None:
    source: IdentitySource = FixedSource(None)
    assert source.current is None
