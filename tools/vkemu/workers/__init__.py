"""Where work is done: in this process, in processes of this machine, on a Dask cluster.

Work is cut into jobs, each of which any process can do that has this code. Workers are three
methods (`job.Workers`); what the jobs are about - slices of a search, cells of a matrix, seeds - is
no business of theirs.
"""
