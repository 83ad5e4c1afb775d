"""Progress bars of what happens before the first tile: a line for each stage."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from napari_txm_bgcorr.core.progress import SILENT, Watch

__all__ = ["FitBar"]


class FitBar:
    """Shows the stages of a fit while it lasts.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the last bar."""
        self._close()

    @property
    def watch(self) -> Watch:
        """For `fit_method`."""
        return SILENT if self._quiet else Watch(self._tell)

    def _tell(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._close()
            self._stage = stage
            self._bar = tqdm(desc=stage, total=total or None, leave=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
