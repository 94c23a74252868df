"""The CRM that ``agent.py`` asks: a server with grpcio, which learns from its sidecar who asks, and for whom.

PORT=9000 python crm.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc


def find(number: bytes, context: grpc.ServicerContext) -> bytes:
    """Return a customer's record."""
    told = dict(context.invocation_metadata())
    return b"customer %b, read by %b for %b" % (
        number,
        told.get("delegation-actor", "nobody").encode(),
        told.get("delegation-subject", "nobody").encode(),
    )


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(16))
    methods = {"Find": grpc.unary_unary_rpc_method_handler(find)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Customers", methods)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()
