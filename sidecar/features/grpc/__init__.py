"""gRPC policy: each call is an operation, named by its path.

Settings: ``sidecar/config/operation_model.py``, ``sidecar/config/operation_checks.py``,
    ``sidecar/config/operation_words.py``
Decisions: ``core/delegation_core/grpc.py``, ``core/delegation_core/grpc_messages.py``
Forwarding: ``feature.py``
Page: ``docs/http2.md``
"""
