"""Agents as Dask sees them."""
