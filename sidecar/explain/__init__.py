"""Judges a recorded request again, by the decision core and the settings of the workload that wrote the record."""
