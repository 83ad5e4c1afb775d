"""Panel "Background correction": correct scans, watch a folder, refine and save results.

`widget` is the panel, `tasks` the work of its threads, `messages` the link between the two.
"""
