"""Labelled data: reading, checking, splitting, near-duplicates."""
