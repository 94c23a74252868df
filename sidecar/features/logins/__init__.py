"""User logins: at an entry, and at a token service for one outbound route.

Settings: ``settings.py``
Decisions: ``sidecar/delegation/login.py``, ``sidecar/delegation/login_issuer.py``,
    ``sidecar/delegation/authorization_response.py``
Forwarding: ``logins.py``, ``user_logins.py``, ``pending_logins.py``
Page: ``docs/front-apps.md``
"""
