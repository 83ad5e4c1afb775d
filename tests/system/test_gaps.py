"""A real mosaic without its empty tiles, as a user corrects it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from napari_txm_bgcorr import io
from napari_txm_bgcorr.cli import app


def test_real_mosaic_with_gaps_is_corrected_stitched_and_judged(
    txm_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = io.read(txm_data / "bl01b_lm_covered6")
    done = CliRunner().invoke(app, [
        "correct", str(txm_data / "bl01b_lm_covered6"), "-o", str(out), "--method", "smooth",
        "--save", "raw,background,corrected", "--stitch", "--json",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)["results"][0]
    assert any("2 of the 8 tiles" in note for note in summary["notes"])
    again = io.read(out)
    assert again.positions_px is not None and given.positions_px is not None
    np.testing.assert_array_equal(again.raster_index, [0, 1, 2, 3, 5, 7])
    off = again.positions_px - given.positions_px
    assert np.abs(off - np.median(off, axis=0)).max() < 8
    picture = io.read(Path(summary["stitched"]["output"])).tiles[0]
    gap = picture[40:440, 40:430]  # where tiles 0009 and 0013 were
    assert not np.nan_to_num(gap).any()
    judged = CliRunner().invoke(app, ["quality", str(out), "--json"], catch_exceptions=False)
    assert judged.exit_code == 0, judged.output
