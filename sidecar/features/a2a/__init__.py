"""A2A: operations, agent cards, and tasks that are bound to their callers.

Settings: ``sidecar/config/operation_model.py``, ``sidecar/config/operation_checks.py``,
    ``sidecar/config/operation_words.py``
Decisions: ``sidecar/delegation/a2a.py``, ``sidecar/delegation/a2a_rules.py``, ``sidecar/delegation/a2a_tasks.py``,
    ``sidecar/delegation/a2a_lists.py``, ``sidecar/delegation/a2a_grpc.py``, ``sidecar/delegation/a2a_grpc_lists.py``,
    ``sidecar/delegation/agent_card.py``, ``sidecar/delegation/agent_card_grpc.py``,
    ``sidecar/delegation/push_urls.py``
Forwarding: ``feature.py``, ``operation.py``, ``agent_cards.py``, ``task_bindings.py``, ``forwarding.py``,
    ``held_forwarding.py``, ``warm.py``
Page: ``docs/a2a.md``
"""
