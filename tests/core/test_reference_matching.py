"""References match images by energy, exposure, beam monitor and time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr import io
from napari_txm_bgcorr.core.reference_matching import match_references, with_matching_references
from napari_txm_bgcorr.core.references import References
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.errors import ReadError
from tests.helpers.ole2 import write_xradia

NOON = np.datetime64("2024-03-01T12:00:00")


def scan_of(tiles=1, **facts):
    images = np.full((tiles, 8, 8), 900, np.uint16)
    known = {"energy_ev": 8353.0, "exposure_s": 50.0, "times": hours(range(tiles))} | facts
    names = tuple(f"t{k}" for k in range(tiles))
    return Scan(images, "series", Source(Path("made.xrm"), "test"), names, **known)


def hours(values):
    return NOON + (np.asarray(list(values)) * 3600).astype("timedelta64[s]")


def flats(energies=(8353.0,), exposures=None, level=1000, **facts):
    count = len(energies)
    images = np.full((count, 8, 8), level, np.uint16)
    exposures = np.full(count, 50.0) if exposures is None else np.array(exposures, float)
    given = {"times": hours(-np.arange(count))} | facts
    return References(
        images, energies_ev=np.array(energies, float), exposures_s=exposures, **given
    )


@pytest.mark.parametrize(
    ("energy", "usable"),
    [
        (8353.0, True),
        (8353.9, True),
        (8352.2, True),
        (8354.3, False),
        (8250, False),
        (np.nan, True),
    ],
)
def test_another_energy_gives_no_shape(energy, usable):
    match = match_references(flats([energy]).attach(scan_of()))
    assert match.shape_usable.tolist() == [[usable]]
    assert match.level_known.tolist() == [[usable]]
    assert bool(match.notes) is not usable
    unknown = match_references(flats([energy]).attach(scan_of(energy_ev=None)))
    assert unknown.shape_usable.all() and not unknown.notes


def test_an_exposure_is_a_factor():
    match = match_references(flats([8353] * 3, [50, 35, np.nan]).attach(scan_of()))
    np.testing.assert_allclose(match.log_factor, [[0, np.log(50 / 35), 0]])
    assert match.level_known.tolist() == [[True, True, False]]
    assert match.notes[0].startswith("references of 35 s scaled to the image's 50 s")
    unknown = match_references(flats().attach(scan_of(exposure_s=None)))
    assert not unknown.level_known.any() and not unknown.log_factor.any() and not unknown.notes


def test_the_beam_monitor_is_a_factor_where_both_are_connected():
    given = flats([8353] * 3, monitor=np.array([100.0, 0.0, 9000.0]))
    match = match_references(given.attach(scan_of(monitor=np.array([110.0]))))
    np.testing.assert_allclose(match.log_factor, [[np.log(1.1), 0, 0]])  # the last is no such one
    assert match.notes == ("references scaled by +10.0 %, as the beam monitor tells",)


def test_ages_are_in_hours():
    match = match_references(flats([8353] * 2).attach(scan_of(2)))
    np.testing.assert_allclose(match.hours, [[0, 1], [1, 2]])
    undated = match_references(flats(times=None).attach(scan_of()))
    assert np.isnan(undated.hours).all()


def test_references_of_several_energies_are_shared_out():
    energies = np.array([8340.0, 8353.0, 8400.0])
    scan = scan_of(3, energies_ev=energies)
    match = match_references(flats([8353, 8340, 8340, 8250]).attach(scan))
    assert match.shape_usable.tolist() == [
        [False, True, True, False], [True, False, False, False], [False] * 4
    ]  # fmt: skip
    assert match.nearest[:2].tolist() == match.shape_usable[:2].tolist()
    assert match.nearest[2].tolist() == [True, False, False, False]
    assert match.notes == (
        "1 of 4 references was taken at 8250 eV, the images at 8340 to 8400 eV: its shape is not "
        "used",
        "1 of 3 images was taken at 8400 eV, where no reference was",
        "references of 2 energies are shared out to their images",
    )


@pytest.mark.parametrize(
    ("energies", "words"),
    [
        ([8250, 8353, 8250, 8250],
         "3 of 4 references were taken at 8250 eV, the image at 8353 eV: their shape is not used"),
        ([8250],
         "the reference was taken at 8250 eV, the image at 8353 eV: its shape is not used"),
        ([8250, 8240], "both references were taken at 8240 to 8250 eV"),
    ],
)  # fmt: skip
def test_notes_say_which_references_are_not_used(energies, words):
    assert match_references(flats(energies).attach(scan_of())).notes[0].startswith(words)


def test_a_scan_without_references_matches_none():
    match = match_references(scan_of(2))
    assert match.shape_usable.shape == match.hours.shape == match.nearest.shape == (2, 0)
    assert not match.notes
    scan = scan_of()
    assert with_matching_references(scan) is scan


def test_what_matches_is_left_at_the_exposure_of_the_tiles():
    dark = np.full((2, 8, 8), 100, np.uint16)
    scan = scan_of(2, darks=dark)
    left = with_matching_references(flats([8250, 8353, 8353], [50, 50, 35]).attach(scan))
    assert left.flats.shape[0] == 2 and left.flat_times.tolist() == hours([-1, -2]).tolist()
    np.testing.assert_allclose(left.flats[0], 1000)
    np.testing.assert_allclose(left.flats[1], 100 + 900 * 50 / 35, rtol=1e-6)
    again = match_references(left)
    assert not again.log_factor.any() and again.level_known.all() and not again.notes
    assert with_matching_references(left) is left
    assert with_matching_references(flats([8250]).attach(scan)).flats is None


def test_facts_of_another_number_than_the_images_are_refused():
    with pytest.raises(ReadError, match=r"flat_energies_ev has shape \(1,\) for 2 images"):
        replace(flats().attach(scan_of()), flats=np.ones((2, 8, 8)))
    with pytest.raises(ReadError, match=r"energies_ev has shape \(1,\) for 2 images"):
        scan_of(2, energies_ev=np.array([8000.0]))


def test_files_bring_energy_exposure_and_monitor(tmp_path):
    image = np.full((1, 16, 16), 500, np.uint16)
    ion = {"ImageInfo/IonChamberCurrent": np.float32(230).tobytes()}
    write_xradia(tmp_path / "a.xrm", image, energy_ev=[8353.03], exposure_s=50, replaced=ion)
    write_xradia(tmp_path / "ref_8250_0eV.xrm", image, energy_ev=[0], exposure_s=35)
    write_xradia(tmp_path / "ref_b.xrm", image, energy_ev=[8353.0], exposure_s=35, replaced=ion)
    scan = io.read(tmp_path / "a.xrm")
    assert scan.monitor.tolist() == [230]
    given = [tmp_path / "ref_8250_0eV.xrm", tmp_path / "ref_b.xrm"]
    for with_them in (io.read_references(given, like=scan).attach(scan), io.read(tmp_path)):
        np.testing.assert_allclose(with_them.flat_energies_ev, [8250, 8353], rtol=1e-6)
        assert with_them.flat_exposures_s.tolist() == [35, 35]
        np.testing.assert_array_equal(with_them.flat_monitor, [np.nan, 230])
        assert match_references(with_them).shape_usable.tolist() == [[False, True]]


def test_energies_in_the_names_of_a_folder_are_each_images(tmp_path):
    image = np.full((1, 16, 16), 500, np.uint16)
    for k, energy in enumerate((8340, 8353)):
        write_xradia(tmp_path / f"s_{energy}.0_eV_{k}.xrm", image, energy_ev=[0], exposure_s=5 + k)
    scan = io.read(tmp_path)
    assert scan.energies_ev.tolist() == [8340, 8353] and scan.exposures_s.tolist() == [5, 6]
    assert scan.energy_ev == 8340


def test_references_of_another_binning_are_refused(tmp_path):
    image = np.full((1, 16, 16), 500, np.uint16)
    write_xradia(tmp_path / "a.xrm", image, binning=2)
    write_xradia(tmp_path / "r.xrm", image, binning=4)
    with pytest.raises(ReadError, match="reference of binning 4 for tiles of binning 2"):
        io.read_references([tmp_path / "r.xrm"], like=io.read(tmp_path / "a.xrm"))


def test_real_references_of_two_energies_and_exposures(txm_data):
    folder = txm_data / "aps8bm"
    scan = io.read(folder / "fov03_xanessoc01_8353_0eV.xrm")
    names = ("ref_xanesocv_8250_0eV", "ref_xanesocv_8353_0eV", "ref_xanessoc01_8353_0eV")
    found = io.read_references([folder / f"{name}.xrm" for name in names], like=scan)
    match = match_references(found.attach(scan))
    assert match.shape_usable.tolist() == [[False, True, True]]
    np.testing.assert_allclose(match.log_factor, [[np.log(35 / 50)] * 2 + [0]])
    np.testing.assert_allclose(match.hours, [[6.81, 5.49, -0.02]], atol=0.01)
    flats = with_matching_references(found.attach(scan)).flats
    level = [float(np.median(flats[k])) for k in range(2)]
    assert level[0] == pytest.approx(level[1], rel=0.06)  # 1.4 without the exposure
