"""Layers of scans, results and stitched mosaics in napari's viewer.

Arrays are assembled on demand from tiles; overviews of large mosaics are filled in a thread.
"""
