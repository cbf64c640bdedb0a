"""Runs costly steps of training in this process or on a Dask cluster."""
