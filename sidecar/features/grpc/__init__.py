"""gRPC policy: each call is an operation, named by its path.

Settings: ``settings.py``
Decisions: ``core/delegation_core/grpc.py``, ``core/delegation_core/grpc_messages.py``
Forwarding: ``feature.py``
Page: ``docs/http2.md``
"""
