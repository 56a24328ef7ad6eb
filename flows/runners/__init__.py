"""Where queries run: local processes, Slurm, Dask, and several of them in one campaign."""
