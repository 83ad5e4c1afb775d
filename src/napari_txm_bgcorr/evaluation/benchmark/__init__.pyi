from .learning_curve import bench_curves, equal_error_table
from .report import chart, curve_chart, require_matplotlib, text_table
from .training import BenchOptions, bench_train

__all__ = [
    "BenchOptions",
    "bench_curves",
    "bench_train",
    "chart",
    "curve_chart",
    "equal_error_table",
    "require_matplotlib",
    "text_table",
]
