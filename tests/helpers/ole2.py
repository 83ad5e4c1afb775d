"""Valid OLE2 and Xradia files for the tests."""

from napari_txm_bgcorr.io.output.ole_writer import Blocks, write_ole2
from napari_txm_bgcorr.io.output.xradia import CODES, write_xradia, xradia_streams

__all__ = ["CODES", "Blocks", "write_ole2", "write_xradia", "xradia_streams"]
