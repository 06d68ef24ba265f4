"""The sides of `bench_peers.py` that train, each in a process of its own."""
