"""Door of an entry, for users' own clients, and the metadata of protected resources.

Settings: ``settings.py``
Decisions: ``sidecar/delegation/door.py``, ``sidecar/delegation/door_url.py``,
    ``sidecar/delegation/resource_metadata.py``
Forwarding: ``door.py``, ``forwarding.py``, ``resource_metadata.py``
Page: ``docs/door.md``
"""
