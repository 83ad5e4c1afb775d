from .fit_file import Fit, FitPlace, FitRefusedError, remove_fits
from .job import DONE, claim, release, replace_output, resumed
from .out_place import check_place
from .patch import FinishedOutput, Patch, holds_tiles, is_record, open_finished, recorded_config
from .pyramid import PYRAMIDS, PyramidJob, PyramidSink
from .pyramid_reader import open_pyramid
from .result import DOMAINS, TileParts, open_parts
from .shared_store import ChunkWriter, join_shards, open_shard
from .tile_positions import Places, begun_places, find_places
from .xradia import write_xradia

__all__ = [
    "DOMAINS",
    "DONE",
    "PYRAMIDS",
    "ChunkWriter",
    "FinishedOutput",
    "Fit",
    "FitPlace",
    "FitRefusedError",
    "Patch",
    "Places",
    "PyramidJob",
    "PyramidSink",
    "TileParts",
    "begun_places",
    "check_place",
    "claim",
    "find_places",
    "holds_tiles",
    "is_record",
    "join_shards",
    "open_finished",
    "open_parts",
    "open_pyramid",
    "open_shard",
    "recorded_config",
    "release",
    "remove_fits",
    "replace_output",
    "resumed",
    "write_xradia",
]
