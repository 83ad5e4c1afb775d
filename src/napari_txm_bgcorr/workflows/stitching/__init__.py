"""Stitched mosaics: blended block by block from the tiles of a result.

In bounded memory, resumable; the tiles stay as they are.
"""
