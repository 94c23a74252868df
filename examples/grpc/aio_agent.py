"""The agent of ``agent.py`` in an event loop, with ``grpc.aio``.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 python aio_agent.py
"""

import asyncio
import os

import grpc
from delegation_agent.grpc_aio import ServerInterceptor, channel


async def main() -> None:
    """Serve until the process ends."""
    crm = channel("crm")  # the route's `match.host`
    find = crm.unary_unary("/shop.Customers/Find")

    async def ask(number: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await find(number, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:  # with the reason, where a sidecar refused it
            await context.abort(error.code(), error.details())

    server = grpc.aio.server(interceptors=[ServerInterceptor()])
    methods = {"Ask": grpc.unary_unary_rpc_method_handler(ask)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Planner", methods)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
