"""User logins: at an entry, and at a token service for one outbound route.

Settings: ``settings.py``
Decisions: ``core/delegation_core/login.py``, ``core/delegation_core/login_issuer.py``,
    ``core/delegation_core/authorization_response.py``
Forwarding: ``logins.py``, ``user_logins.py``, ``pending_logins.py``
Page: ``docs/front-apps.md``
"""
