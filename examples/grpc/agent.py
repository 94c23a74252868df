"""An agent with grpcio. It asks the CRM, behind another sidecar, by gRPC for the user whose call it serves.

Messages are bytes here, so that nothing has to be generated; stubs from a .proto file take the same channel.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 python agent.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from delegation_agent.grpc import ServerInterceptor, channel

crm = channel("crm")  # the route's `match.host`
find = crm.unary_unary("/shop.Customers/Find")


def ask(number: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer from the customer's record, within the caller's deadline."""
    try:
        return find(number, timeout=min(context.time_remaining(), 30))  # without a deadline, grpcio says 9e18 seconds
    except grpc.RpcError as error:  # with the reason, where a sidecar refused it
        context.abort(error.code(), error.details())


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(16), interceptors=[ServerInterceptor()])
    methods = {"Ask": grpc.unary_unary_rpc_method_handler(ask)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Planner", methods)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()
