"""Observe mode: records refusals without enforcing them, on routes and until a day that settings name.

Settings: ``settings.py``
Decisions: ``core/delegation_core/observed.py``, ``core/delegation_core/decide.py``
Forwarding: ``observing.py``, ``plain.py``, ``shown_credentials.py``
Page: ``docs/observe.md``
"""
