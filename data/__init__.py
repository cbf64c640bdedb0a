"""The sample corpus, which makes everything run without own data."""
