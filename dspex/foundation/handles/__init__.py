"""What a user holds of the foundation: each speaks through the ports, none knows Dask."""
