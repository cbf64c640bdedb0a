"""Load tests and benchmarks of the running server."""
