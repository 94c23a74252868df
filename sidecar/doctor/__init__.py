"""The doctor: probes a foreign token service, and concludes from its answers if it supports delegation.

`probes` is a script without I/O: it yields requests and is resumed with answers. `verdicts` judges the attempts, and
`advice` ends with settings or with the reasons against them. Only `transport` has sockets.
"""
