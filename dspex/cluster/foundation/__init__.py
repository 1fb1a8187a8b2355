"""The foundation on Dask: the scheduler's plugin, the way to it, what runs on each worker."""
