"""The benchmark: the sidecar beside its peers, in one interleaved run, as ratios with their spread. See README.md."""
