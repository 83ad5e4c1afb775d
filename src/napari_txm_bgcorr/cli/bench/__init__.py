"""`txm-bgcorr bench`: timings beside the plain way of doing the same.

Ratios measured side by side in one run; nothing is compared with another day.
"""
