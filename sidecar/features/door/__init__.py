"""Door of an entry, for users' own clients, and the metadata of protected resources.

Settings: ``settings.py``
Decisions: ``core/delegation_core/door.py``, ``core/delegation_core/door_url.py``,
    ``core/delegation_core/resource_metadata.py``
Forwarding: ``door.py``, ``forwarding.py``, ``resource_metadata.py``
Page: ``docs/door.md``
"""
