"""An agent of gRPC in a pod, its health check, and a client of it, run by ``python3 -c`` with the image's grpclib.

``serve`` listens at 127.0.0.1:8080, ``health`` asks whether it serves there, ``call`` logs alice in, calls it
through sidecars from the front app's pod, and prints what it got as one line of JSON.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import sys
from typing import Any
from urllib.parse import urlencode

from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError
from grpclib.health.service import Health
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from grpclib.server import Server


class Plan:
    """Answers with the user, the caller and the question."""

    async def make(self, stream: Any) -> None:
        asked = await stream.recv_message()
        shown = [stream.metadata[f"delegation-{name}"] for name in ("subject", "actor")]
        await stream.send_message(StringValue(value=" ".join([*shown, asked.value])))

    def __mapping__(self) -> dict[str, Handler]:
        unary = Handler(self.make, Cardinality.UNARY_UNARY, StringValue, StringValue)
        return {"/demo.Plan/Make": unary, "/demo.Plan/Drop": unary}


async def serve() -> None:
    server = Server([Plan(), Health()])
    await server.start("127.0.0.1", 8080)
    await server.wait_closed()


async def health() -> None:
    async with Channel("127.0.0.1", 8080) as channel:
        await HealthStub(channel).Check(HealthCheckRequest(), timeout=3)


def log_in() -> str:
    form = {
        "grant_type": "password",
        "username": "alice",
        "password": "",
        "client_id": "front-app",
        "scope": "assistant",
    }
    context = ssl._create_unverified_context()  # like `curl -k`: its certificate names no host
    connection = http.client.HTTPSConnection("login.login.svc", 7300, timeout=10, context=context)
    connection.request("POST", "/token", urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"})
    return str(json.loads(connection.getresponse().read())["access_token"])


async def call() -> None:
    async with Channel("127.0.0.1", 7080) as channel:

        async def one(method: str, shown: dict[str, str]) -> str:
            try:
                ask: Any = UnaryUnaryMethod(channel, f"/demo.Plan/{method}", StringValue, StringValue)
                return str((await ask(StringValue(value="plan"), metadata=shown, timeout=20)).value)
            except GRPCError as error:
                return f"{error.status.name} {error.message}"

        login = {"authorization": f"Bearer {log_in()}"}
        said = [await one("Make", login), await one("Drop", login), await one("Make", {})]
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "call":
        asyncio.run(call())
    else:
        asyncio.run(serve() if sys.argv[1] == "serve" else health())
