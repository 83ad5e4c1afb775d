from . import report
from .case_pictures import write_pictures
from .folder_watcher import Arrival, State, Watcher
from .guard import reading, writing
from .output.job import finished
from .output.out_place import check_place
from .output.writer import WRITERS, OutputWriter, open_output
from .readers.dispatch import APERTURE, READERS, from_aperture, read, read_references
from .record import scan_record
from .reference_library import Library, Line
from .report import Report, worst, write_csv, write_html
from .training_images import read_training_data

__all__ = [
    "APERTURE",
    "READERS",
    "WRITERS",
    "Arrival",
    "Library",
    "Line",
    "OutputWriter",
    "Report",
    "State",
    "Watcher",
    "check_place",
    "finished",
    "from_aperture",
    "open_output",
    "read",
    "read_references",
    "read_training_data",
    "reading",
    "report",
    "scan_record",
    "worst",
    "write_csv",
    "write_html",
    "write_pictures",
    "writing",
]
