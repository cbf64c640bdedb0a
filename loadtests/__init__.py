"""Load tests: what readers and integrators do, by Locust, against a server that this starts."""
