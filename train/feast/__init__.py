"""Features of the messages in Feast."""
