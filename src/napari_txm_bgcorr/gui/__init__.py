"""Panels for napari: Qt and layers, no numerics.

One package per panel, `layers` for the viewer's layers, `common` for what panels share. The
manifest ``napari.yaml`` names the entry points.
"""
