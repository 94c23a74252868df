"""The doctor: asks a token service we did not write, and tells from its answers if it can carry delegation.

`probes` is a script without I/O: it yields requests and is resumed with answers. `verdicts` judges the attempts, and
`advice` ends with settings or with the reasons against them. Only `transport` has sockets.
"""
