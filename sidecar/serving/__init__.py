"""Listeners for aiohttp with our own limits: on peers, on connections, and on the time of a request to arrive."""
