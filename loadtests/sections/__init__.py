"""Sections of the benchmark: each module measures figures and renders its part of the page."""
