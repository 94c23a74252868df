from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.delegation.policy import Policy
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Reason, Unavailable
from sidecar.proxy.snapshot import Policies
from tests.delegation.world import POLICY, WRITER

OTHER = SpiffeId("spiffe://acme.example/agent/other")


def make(workload: SpiffeId, number: int) -> Policy:
    return replace(POLICY, workload=workload, number=number)


def test_without_an_identity_there_is_no_policy() -> None:
    policies = Policies(make)
    with pytest.raises(Unavailable) as refused:
        policies.now()
    assert refused.value.reason is Reason.NOT_READY


def test_with_an_identity_there_is_one_and_a_renewal_changes_nothing() -> None:
    policies = Policies(make)
    policies.follow(WRITER)
    first = policies.now()
    policies.follow(SpiffeId(str(WRITER)))
    assert policies.now() is first
    assert (first.workload, first.number) == (WRITER, 1)


def test_another_identity_is_another_policy() -> None:
    policies = Policies(make)
    policies.follow(WRITER)
    policies.follow(OTHER)
    assert (policies.now().workload, policies.now().number) == (OTHER, 2)


def test_a_withdrawn_identity_takes_the_policy_with_it_and_the_next_has_a_new_number() -> None:
    policies = Policies(make)
    policies.follow(WRITER)
    policies.follow(None)
    with pytest.raises(Unavailable):
        policies.now()
    policies.follow(WRITER)
    assert policies.now().number == 2
