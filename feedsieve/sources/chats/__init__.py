"""Exports, archives and databases of chats."""
