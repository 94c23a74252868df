"""Drivers of a script: with a real server behind ``call``, or with a simulated one that lists the requests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from delegation_core.jws import encode_part
from sidecar.doctor.attempts import Examination
from sidecar.doctor.messages import Answer, Place, Request, Script, Wait

T = TypeVar("T")

_IMAGINED_LIFE_S: Final = 3600
_MOST_REQUESTS: Final = 500  # a script has far fewer: its loops follow lists of the command line


class Call(Protocol):
    """Sends one request."""

    async def __call__(self, request: Request, /) -> Answer:
        """Send a request. Returns the answer, with status 0 if the server did not answer."""


async def drive(script: Script[T], call: Call, sleep: Callable[[float], Awaitable[object]]) -> T:
    """Run a script to its end."""
    answer: Answer | None = None
    try:
        for _ in range(_MOST_REQUESTS):
            step = next(script) if answer is None else script.send(answer)
            if isinstance(step, Wait):
                await sleep(step.seconds)
                answer = Answer()
            else:
                answer = await call(step)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the script of the probes does not end")


def plan_requests(script: Script[Examination], now: int) -> list[Request]:
    """List a script's requests at a simulated server that accepts all; refusals lead to others of the same kind."""
    requests: list[Request] = []
    answer: Answer | None = None
    try:
        while len(requests) < _MOST_REQUESTS:
            step = next(script) if answer is None else script.send(answer)
            if isinstance(step, Request):
                requests.append(step)
                answer = _imagine(step, len(requests), now)
            else:
                answer = Answer()
    except StopIteration:
        pass
    return requests


def _imagine(request: Request, number: int, now: int) -> Answer:
    if request.place is Place.INTROSPECTION:
        return Answer(status=200, members={"active": True, "sub": "imagined"}, at=now)
    claims = {
        "sub": request.client.client_id,
        "act": {"sub": "imagined"},
        "cnf": {},
        "jti": str(number),
        "exp": now + _IMAGINED_LIFE_S,
        "iat": now,
    }
    parts = (json.dumps({"alg": "ES256"}), json.dumps(claims), "imagined")
    token = ".".join(encode_part(part.encode()).decode() for part in parts)
    return Answer(status=200, members={"access_token": token}, at=now)
