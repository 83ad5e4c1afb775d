"""Panel "Mosaic quality": figures and flags of every tile, overlays, redoing of bad tiles.

`widget` is the panel, `tasks` the work of its thread, `table_model` the table for Qt.
"""
