"""Panels for napari: Qt and layers, no numerics."""
