"""Improve machine-learning programs on a Dask cluster."""
