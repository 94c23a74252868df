"""Listeners with our own limits for aiohttp: on peers, on connections, and on the time in which a request arrives."""
