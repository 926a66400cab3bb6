"""Where many tasks of one kind are run: on this machine, or on the workers of a Dask cluster."""
