"""An adapter of an invented dialect, as a distribution of its own would bring it: `docs/adapters.md` shows it."""

from __future__ import annotations

from typing import Final

from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted


def exchange(wanted: Wanted) -> Steps:
    """Ask for a ticket first, and trade the ticket and the inbound token for the token."""
    ticket = yield Step(form=(("grant_type", "urn:example:ticket"), ("agent", wanted.client_id)), shared=True)
    answer = yield Step(
        form=(
            ("grant_type", "urn:example:act-for"),
            ("ticket", ticket.token(scope=None).access_token),
            ("user_token", wanted.subject_token.raw),
            ("target", wanted.plan.audience),
            ("scope", " ".join(sorted(wanted.plan.scope))),
        )
    )
    return answer.token(scope=wanted.plan.scope)


ADAPTER: Final = Adapter(
    name="invented-1",
    capabilities=Capabilities(emits_act=True, nests_act=True, narrows=True, keeps_subject=True, several_steps=True),
    client_auth=(ClientAuth.JWT_SVID,),
    exchange=exchange,
)
