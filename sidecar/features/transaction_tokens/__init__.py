"""Transaction tokens: verified from peers, and sent on with calls.

Settings: ``settings.py``
Decisions: ``core/delegation_core/txn_token.py``
Forwarding: ``txn_tokens.py``
Page: ``docs/transaction-tokens.md``
"""
