"""Advice on each reason code: its meaning, who must act, and what an agent developer sees. For the page and `explain`.

The answer of a reason, in ``errors``, holds only what the caller may know; these texts are for readers of records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from delegation_core.errors import Reason
from sidecar.reasons.guidance import Guidance, Role, Stage
from sidecar.reasons.inbound import INBOUND
from sidecar.reasons.outbound import OUTBOUND

__all__ = ["GUIDANCE", "Guidance", "Role", "Stage", "seen"]


class _Rows(dict[Reason, Guidance]):
    def __missing__(self, reason: Reason) -> NoReturn:
        raise LookupError(f"no advice on {reason}: add a row to sidecar/reasons/inbound.py or outbound.py")


GUIDANCE: Final[Mapping[Reason, Guidance]] = _Rows({**INBOUND, **OUTBOUND})

_OWN_CALL_FAILS: Final = "its outbound call returns"
_CALLER_GETS: Final = "it is not called; the calling agent gets"


def seen(reason: Reason) -> str:
    """Describe what an agent developer sees of a refusal, in a sentence without a full stop."""
    answer, stage = reason.answer, GUIDANCE[reason].stage
    said = f"{answer.status} `{reason}`"
    if stage is Stage.HANDSHAKE:
        nothing = "it receives nothing; the calling agent gets 503 `upstream_unreachable` from its own sidecar"
        return f"{nothing}; if trust in a next hop ends during a call of its own, that call returns 403 `{reason}`"
    if stage is Stage.CUT:
        return "a connection that ends before the answer is complete"
    if stage is Stage.PASSED_ON:
        return "its outbound call returns the answer of the next hop's sidecar, with that one's reason"
    if stage is Stage.SERVICE:
        return f"its outbound call returns {'502 `sts_error`' if answer.status == 401 else '403 `exchange_denied`'}"
    if stage is Stage.OUTBOUND:
        return f"{_OWN_CALL_FAILS} {said}"
    if stage is Stage.EITHER:
        return f"calling out: {said}; being called: it is not called, and the calling agent gets that"
    return f"{_CALLER_GETS} {said}"
