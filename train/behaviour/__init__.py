"""Tests of a model's behaviour on invented messages."""
