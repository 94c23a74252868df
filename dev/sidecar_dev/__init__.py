"""Tools for development and tests: identities, test users, agents, a demo, and attacks. Never part of the product."""

__version__ = "0.1.0"
