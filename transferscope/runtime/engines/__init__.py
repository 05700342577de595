"""Where units of work are carried out: processes of this machine, Dask, SLURM, or any executor of the caller's."""
