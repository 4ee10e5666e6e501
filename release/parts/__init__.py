"""What the packages of Sidecache are made of. Python's standard library is all it needs."""
