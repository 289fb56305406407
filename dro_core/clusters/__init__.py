"""Where calls run: in processes of this machine, or on a cluster of Ray or Dask. It needs nothing of the solvers."""
