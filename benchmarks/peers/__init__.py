"""The compared proxies: one file each, with its start and its omissions."""
