"""Transaction tokens: verified from peers, and sent on with calls.

Settings: ``sidecar/config/txn_token_model.py``, ``sidecar/config/txn_token_checks.py``
Decisions: ``sidecar/delegation/txn_token.py``
Forwarding: ``txn_tokens.py``
Page: ``docs/transaction-tokens.md``
"""
