"""A2A: operations, agent cards, and tasks that are bound to their callers.

Settings: ``settings.py``
Decisions: ``core/delegation_core/a2a.py``, ``core/delegation_core/a2a_rules.py``,
    ``core/delegation_core/a2a_tasks.py``, ``core/delegation_core/a2a_lists.py``,
    ``core/delegation_core/a2a_grpc.py``, ``core/delegation_core/a2a_grpc_lists.py``,
    ``core/delegation_core/agent_card.py``, ``core/delegation_core/agent_card_grpc.py``,
    ``core/delegation_core/push_urls.py``
Forwarding: ``feature.py``, ``operation.py``, ``agent_cards.py``, ``task_bindings.py``, ``forwarding.py``,
    ``held_forwarding.py``, ``warm.py``
Page: ``docs/a2a.md``
"""
