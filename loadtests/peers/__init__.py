"""Other servers for the same encoder, each in an environment of its own."""
