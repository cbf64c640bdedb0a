"""Where messages come from: CSV and JSON Lines files, SQLite dumps, Telegram exports."""
