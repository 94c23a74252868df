from tests.dev.conftest import make_peer, peer

__all__ = ["make_peer", "peer"]
