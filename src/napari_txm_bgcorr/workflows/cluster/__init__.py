"""Corrections by many processes: shares of a job array, workers of dask.distributed.

The bits are those of one process.
"""
