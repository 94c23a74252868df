"""Drives an adapter's steps without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote_plus, urlencode

from delegation_core.plan import Plan
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TokenResponse
from sidecar.exchange.adapters.adapter import Adapter, Answer, Step, Steps, Wanted
from tests.fakes.tokens import WRITER, encode

GRANTED: Mapping[str, object] = {
    "access_token": "a.b.c",
    "issued_token_type": TOKEN_TYPE_ACCESS_TOKEN,
    "token_type": "Bearer",
}


def wanted(
    adapter: Adapter,
    plan: Plan,
    options: Mapping[str, str] | None = None,
    *,
    subject_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
    svid: str | None = "actor.token",
    client_id: str = str(WRITER),
) -> Wanted:
    return Wanted(
        plan=plan,
        subject_token_type=subject_token_type,
        client_id=client_id,
        jwt_svid=svid,
        options=adapter.complete(options or {}),
    )


def answered(status: int = 200, **changes: object) -> Answer:
    """Return an answer with these members changed; None removes one."""
    members = {name: value for name, value in {**GRANTED, **changes}.items() if value is not None}
    return Answer(status, "application/json", encode(members))


def first(steps: Steps) -> Step:
    return next(steps)


def ended(steps: Steps, *answers: Answer) -> TokenResponse:
    """Take the steps to their end with these answers."""
    next(steps)
    for answer in answers:
        try:
            steps.send(answer)
        except StopIteration as end:
            result: TokenResponse = end.value
            break
    else:
        raise AssertionError("the adapter asks on")
    return result


GOLDEN = Path(__file__).parent / "golden"


def played(steps: Steps, name: str, tokens: Mapping[str, str]) -> TokenResponse:
    """Take the steps with the answers of a golden conversation, and compare each request with its bytes.

    ``tokens`` by the names that stand for them in the file.
    """
    result: TokenResponse | None = None
    answer: Answer | None = None
    for message in json.loads((GOLDEN / f"{name}.json").read_text()):
        step = next(steps) if answer is None else steps.send(answer)
        request = urlencode(step.form)
        for short, token in tokens.items():
            request = request.replace(quote_plus(token), short)
        assert [step.endpoint, request] == [message["endpoint"], message["request"]]
        body = message["answer"]
        for short, token in tokens.items():
            body = body.replace(short, token)
        answer = Answer(message["status"], message["content_type"], body.encode())
    assert answer is not None
    try:
        steps.send(answer)
    except StopIteration as end:
        result = end.value
    assert result is not None, "the adapter asks on"
    return result
