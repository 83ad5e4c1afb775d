"""Readers of Xradia, TIFF, HDF5, OME-Zarr and folders of tiles, chosen by content.

A format is a module with ``can_read(path)`` and ``read(path, *, grid=None)``, and a row in
`READERS`. Modules are loaded when a path is looked at: a TIFF needs neither h5py nor zarr.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
