import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.smooth import Smooth
from napari_txm_bgcorr.core.provenance import Provenance, make_provenance, refuse_if_corrected
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.errors import AlreadyCorrectedError, ReadError

TILES = np.ones((1, 8, 8), np.uint16)


def scan_at(path, files=()):
    return Scan(TILES, "single", Source(path, "tiff", files), ("a",))


class Learned(Smooth):
    def describe(self):
        return {"weights_sha256": "ab12", "device": "cuda:0", "prior": "none"}


def test_every_field_is_filled(tmp_path):
    file = tmp_path / "a.tif"
    file.write_bytes(b"pixels")
    made = make_provenance(scan_at(file, (file,)), Learned(), "cuda:0")
    assert made.source_path == str(file)
    assert made.source_sha256 == hashlib.sha256(b"pixels").hexdigest()
    assert (made.source_format, made.method, made.device) == ("tiff", "smooth", "cuda:0")
    assert made.weights_sha256 == "ab12"
    assert made.parameters["prior"] == "none"
    assert made.versions["numpy"] == np.__version__
    assert {"python", "napari-txm-bgcorr", "scipy"} <= set(made.versions)
    age = datetime.now(UTC) - datetime.fromisoformat(made.date)
    assert timedelta(seconds=-2) < age < timedelta(minutes=1)


def test_what_is_no_file_has_no_hash():
    made = make_provenance(scan_at(Path("session-1")), Smooth())
    assert made.source_sha256 is None and made.weights_sha256 is None


def test_round_trip_through_json():
    made = make_provenance(scan_at(Path("x")), Learned(), "cpu")
    back = Provenance.from_dict(json.loads(json.dumps(made.to_dict())))
    assert back == made


def test_fields_of_later_versions_are_left_out_and_missing_ones_refused():
    values = make_provenance(scan_at(Path("x")), Smooth()).to_dict()
    assert Provenance.from_dict({**values, "new": 1}).to_dict() == values
    del values["method"]
    with pytest.raises(ReadError, match="method"):
        Provenance.from_dict(values)


def test_the_guard():
    raw = scan_at(Path("x.tif"))
    refuse_if_corrected(raw)
    done = replace(raw, provenance={"method": "captured"})
    with pytest.raises(AlreadyCorrectedError, match=r"^x\.tif: already corrected with captured; "):
        refuse_if_corrected(done)
    refuse_if_corrected(done, force=True)
