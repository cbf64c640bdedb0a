"""Scoring of files, in this process or on a cluster."""
