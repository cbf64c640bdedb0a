"""The runtime: text in, score out; the message store; the feed. Needs no training library."""
