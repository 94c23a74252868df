"""The proxies that are compared: one file each says how it is started and what it does not do."""
