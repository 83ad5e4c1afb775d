from . import pixels
from .background_method import (
    UNCERTAINTY_UNIT,
    BackgroundMethod,
    FromReferences,
    PredictsTiles,
    StatesUncertainty,
    TilePrediction,
    method_notes,
    reference_doubts,
    reference_notes,
)
from .correction import DivideOptions, TileResult, correct_tiles, divide, optical_density
from .files import (
    discard,
    is_busy,
    patiently,
    remove_file,
    remove_folder,
    rename,
    replace_file,
    standing,
    write_atomic,
)
from .parallel import cpu_cores, one_algebra_thread, peak_rss_mb, spread
from .pedestal import ASKED, with_pedestal
from .pixels import lit_field, lit_in_tiles, saturated
from .polynomials import legendre, terms
from .progress import SILENT, Progress
from .provenance import make_provenance, pixels_sha256, refuse_if_corrected
from .reference_matching import (
    ReferenceMatch,
    match_references,
    same_energy,
    with_matching_references,
)
from .references import (
    References,
    concatenated,
    first_and_each,
    joined_facts,
    joined_times,
    one_or_each,
)
from .scan import Kind, Scan, Source, raster_cells, raster_positions
from .smooth_fields import Coarse, close_corners, log_beam, spread_indices, to_counts, upper
from .stack_statistics import masked_median, median_of
from .tile_array import LazyTiles, TileArray, as_tiles
from .training_images import ACQUISITION, ImageStack, TrainingData

__all__ = [
    "ACQUISITION",
    "ASKED",
    "SILENT",
    "UNCERTAINTY_UNIT",
    "BackgroundMethod",
    "Coarse",
    "DivideOptions",
    "FromReferences",
    "ImageStack",
    "Kind",
    "LazyTiles",
    "PredictsTiles",
    "Progress",
    "ReferenceMatch",
    "References",
    "Scan",
    "Source",
    "StatesUncertainty",
    "TileArray",
    "TilePrediction",
    "TileResult",
    "TrainingData",
    "as_tiles",
    "close_corners",
    "concatenated",
    "correct_tiles",
    "cpu_cores",
    "discard",
    "divide",
    "first_and_each",
    "is_busy",
    "joined_facts",
    "joined_times",
    "legendre",
    "lit_field",
    "lit_in_tiles",
    "log_beam",
    "make_provenance",
    "masked_median",
    "match_references",
    "median_of",
    "method_notes",
    "one_algebra_thread",
    "one_or_each",
    "optical_density",
    "patiently",
    "peak_rss_mb",
    "pixels",
    "pixels_sha256",
    "raster_cells",
    "raster_positions",
    "reference_doubts",
    "reference_notes",
    "refuse_if_corrected",
    "remove_file",
    "remove_folder",
    "rename",
    "replace_file",
    "same_energy",
    "saturated",
    "spread",
    "spread_indices",
    "standing",
    "terms",
    "to_counts",
    "upper",
    "with_matching_references",
    "with_pedestal",
    "write_atomic",
]
