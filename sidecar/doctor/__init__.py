"""The doctor: probes a foreign token service, and concludes from its answers if it supports delegation.

`probes` is a script without I/O: it yields requests and is resumed with answers. `verdicts` judges the attempts,
`conclusion` weighs the verdicts, and `fitting_settings` proposes settings. Only `transport` has sockets.
"""
