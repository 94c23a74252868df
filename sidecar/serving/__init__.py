"""Listeners of aiohttp that are ours: who is accepted, how many at once, and how long a request may take to come."""
