"""The injector: a mutating admission webhook that puts the sidecar into pods, or refuses them."""
