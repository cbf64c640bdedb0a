"""Sources that are followed: a bot, a folder, feeds."""
