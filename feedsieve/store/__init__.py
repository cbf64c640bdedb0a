"""The message store: schema, import, scores and the feed, in SQLite or PostgreSQL."""
