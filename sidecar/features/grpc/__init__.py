"""gRPC policy: each call is an operation, named by its path.

Settings: ``sidecar/config/operation_model.py``, ``sidecar/config/operation_checks.py``,
    ``sidecar/config/operation_words.py``
Decisions: ``sidecar/delegation/grpc.py``, ``sidecar/delegation/grpc_messages.py``
Forwarding: ``feature.py``
Page: ``docs/http2.md``
"""
