"""A call of ``agent.py`` through the mesh of ``sidecar dev run``, which prints the address and the file of the login.

python call.py 127.0.0.1:43393 /tmp/sidecar-x1y2z3/alice
"""

import sys
from pathlib import Path

import grpc

if __name__ == "__main__":
    address, login = sys.argv[1:]
    _, _, value = Path(login).read_text().strip().partition(": ")  # Authorization: Bearer …
    with grpc.insecure_channel(address, options=[("grpc.default_authority", "agent")]) as channel:
        ask = channel.unary_unary("/shop.Planner/Ask")
        try:
            sys.stdout.write(ask(b"42", metadata=[("authorization", value)], timeout=10).decode() + "\n")
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
