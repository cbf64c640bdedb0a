"""Metrics, slices and cross-validation."""
