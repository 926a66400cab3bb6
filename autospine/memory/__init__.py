"""Memory of networks, estimated without running them."""
