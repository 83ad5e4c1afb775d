"""Panel "Train background model": choose data and settings, start and watch a run.

A run is a process of its own (`process`); the panel reads and steers it through its folder.
"""
