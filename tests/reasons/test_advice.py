import pytest

from delegation_core.errors import Reason
from sidecar.reasons.advice import GUIDANCE, Stage, seen
from sidecar.reasons.inbound import INBOUND
from sidecar.reasons.outbound import OUTBOUND


def test_every_reason_has_one_row_of_advice() -> None:
    missing = sorted(set(Reason) - GUIDANCE.keys())
    assert not missing, f"add a row to sidecar/reasons/inbound.py or outbound.py for {missing}"
    assert INBOUND.keys().isdisjoint(OUTBOUND)


@pytest.mark.parametrize("reason", Reason)
def test_advice_says_what_it_means_who_must_act_and_how(reason: Reason) -> None:
    guidance = GUIDANCE[reason]
    assert guidance.means
    assert guidance.who
    assert len(set(guidance.who)) == len(guidance.who)
    assert guidance.do
    assert not guidance.means.endswith(".")
    assert not guidance.do.endswith(".")


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_without_an_http_answer_is_of_a_stage_that_has_none(reason: Reason) -> None:
    assert (reason.answer.status == 0) is (GUIDANCE[reason].stage in {Stage.HANDSHAKE, Stage.CUT, Stage.PASSED_ON})


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param(Reason.BAD_SVID, "503 `upstream_unreachable`", id="handshake"),
        pytest.param(Reason.PEER_GONE, "ends before the answer is complete", id="cut"),
        pytest.param(Reason.ACT_MISSING, "the calling agent gets 401 `act_missing`", id="inbound"),
        pytest.param(Reason.CALL_NOT_ALLOWED, "its outbound call returns 403 `call_not_allowed`", id="outbound"),
        pytest.param(Reason.OVERLOADED, "calling out: 503 `overloaded`", id="either"),
        pytest.param(Reason.NOT_YOUR_TOKEN, "403 `exchange_denied`", id="token-service"),
        pytest.param(Reason.CLIENT_NOT_AUTHENTICATED, "502 `sts_error`", id="token-service-refused-us"),
    ],
)
def test_what_an_agent_developer_sees_is_the_answer_of_the_stage(reason: Reason, expected: str) -> None:
    assert expected in seen(reason)
