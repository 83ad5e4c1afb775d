from .arguments import path_of, paths_of, reference_stack, scan_of, with_arrays
from .config import JOIN, CorrectionConfig, load_config
from .corrected_scan import CorrectedScan, correct_scan
from .correction import correct, correct_scans
from .correction_result import CorrectionResult
from .inputs import side_by_side
from .prepare import attach, method_of, model_notes, open_scan, with_references
from .progress_bars import Bars
from .quality_report import make_report, measure_corrected, measure_output, summarise
from .redo import flagged_tiles, redo_output, redo_tiles
from .reference_harvest import Harvest, HarvestOptions, harvest
from .saving import record_of, save_tiles
from .simulate import SETTINGS, part_of, write_simulation
from .stitching.blocks import StitchOptions, stitch_tiles
from .stitching.job import stitch_path
from .train import data_overrides, find_data
from .watch import FolderCorrection, check_folders

__all__ = [
    "JOIN",
    "SETTINGS",
    "Bars",
    "CorrectedScan",
    "CorrectionConfig",
    "CorrectionResult",
    "FolderCorrection",
    "Harvest",
    "HarvestOptions",
    "StitchOptions",
    "attach",
    "check_folders",
    "correct",
    "correct_scan",
    "correct_scans",
    "data_overrides",
    "find_data",
    "flagged_tiles",
    "harvest",
    "load_config",
    "make_report",
    "measure_corrected",
    "measure_output",
    "method_of",
    "model_notes",
    "open_scan",
    "part_of",
    "path_of",
    "paths_of",
    "record_of",
    "redo_output",
    "redo_tiles",
    "reference_stack",
    "save_tiles",
    "scan_of",
    "side_by_side",
    "stitch_path",
    "stitch_tiles",
    "summarise",
    "with_arrays",
    "with_references",
    "write_simulation",
]
