import pytest

from sidecar.audit.attribution.readings import Named
from sidecar.audit.attribution.verdicts import MAX_GROUPS, Attribution, Tally, attribution_of

WRITER = "spiffe://acme.example/agent/writer"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        pytest.param(Named(user="alice"), Attribution.IMPERSONATING, id="only-the-user"),
        pytest.param(Named(user="alice", actor=WRITER), Attribution.DELEGATING, id="an-actor-beside-the-user"),
        pytest.param(Named(user="alice", actor="alice"), Attribution.IMPERSONATING, id="the-user-again-is-no-actor"),
        pytest.param(Named(user="alice", client="app"), Attribution.IMPERSONATING, id="a-client-is-no-actor"),
        pytest.param(Named(), Attribution.UNATTRIBUTED, id="nobody"),
        pytest.param(Named(client="app"), Attribution.UNATTRIBUTED, id="a-client-alone"),
        pytest.param(Named(actor=WRITER), Attribution.AGENT_ONLY, id="only-the-agent"),
        pytest.param(Named(user=WRITER), Attribution.AGENT_ONLY, id="a-workload-as-user"),
        pytest.param(Named(user=WRITER, actor=WRITER), Attribution.AGENT_ONLY, id="a-workload-for-itself"),
        pytest.param(Named(user=WRITER, actor="planner"), Attribution.DELEGATING, id="a-workload-for-another"),
    ],
)
def test_a_request_delegates_only_if_somebody_is_named_beside_the_user(named: Named, expected: Attribution) -> None:
    assert attribution_of(named) is expected


def test_the_summary_says_what_nobody_can_say() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add(Named(user="alice"))
    assert tally.sentences() == ["impersonating: 3 of 3 requests; the log does not name the agent"]


def test_each_outcome_that_occurs_is_counted() -> None:
    tally = Tally()
    for named in (Named(user="a"), Named(user="a", client="c", refused=True), Named(user="a", actor="b"), Named()):
        tally.add(named)
    assert tally.sentences() == [
        "impersonating: 2 of 4 requests; the log does not name the agent",
        "delegating: 1 of 4 requests; the actor is named beside the user",
        "unattributed: 1 of 4 requests; neither agent nor user is named",
        "in 1 of these an OAuth client, which got the token, is named beside the user",
        "refused by a sidecar, of the impersonating: 1",
    ]


def test_groups_have_a_limit_and_counts_do_not() -> None:
    tally = Tally()
    for number in range(MAX_GROUPS + 5):
        tally.add(Named(user=f"user{number}"))
    tally.add(Named(user="user0"))
    assert (len(tally.groups), tally.others, tally.requests) == (MAX_GROUPS, 5, MAX_GROUPS + 6)
