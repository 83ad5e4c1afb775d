"""The GPU check from end to end at toy size, with the CPU as device."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.gpu_check.__main__ import Check
from benchmarks.gpu_check.plan import STAGES, TOTAL_S, Stage
from benchmarks.gpu_check.record import Record

ROOT = Path(__file__).resolve().parents[2]
SPEED = {"batch": 8, "hours_published_recipe": 1.0, "energy": None, "note": ""}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on a busy machine
@pytest.mark.skipif(shutil.which("bash") is None, reason="the check is for Linux")
def test_the_rehearsal_runs_every_stage_and_writes_every_file(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "tools" / "gpu_check.sh"), str(tmp_path / "out"), "--rehearse"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"gpu.json", "gpu.md", "gpu.log", "model.safetensors", "model.json"}
    data = json.loads((tmp_path / "out" / "gpu.json").read_text())
    stages = {stage["name"]: stage for stage in data["stages"]}
    assert list(stages) == [stage.name for stage in STAGES]
    assert {stage["state"] for stage in stages.values()} == {"passed"}
    outcomes = {row["name"]: row for row in stages["tests"]["rows"]}
    skipped = [row for row in outcomes.values() if row["outcome"] != "passed"]
    assert len(outcomes) == 10 and [row["note"] for row in skipped] == [
        "the CPU has no CUDA graphs"
    ]
    speeds = {(row["name"], row["fft"]): row["samples_per_s"] for row in stages["speed"]["rows"]}
    assert speeds["naive loop", True] and speeds["batch 2", False]
    assert all(row["note"] == "needs an NVIDIA GPU" for row in stages["compile"]["rows"])
    assert "conv" in stages["profile"]["facts"]["table"]
    assert [stages[name]["rows"][0]["tiles"] for name in ("memory", "files")] == [9, 9]
    drawn, trained = stages["training"]["rows"]
    assert drawn["count"] == 8 and trained["steps"] == 6
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert page.startswith("# GPU rehearsal on the CPU") and "156.7" in page


def test_the_limits_leave_time_for_the_training() -> None:
    limited = sum(stage.limit_s for stage in STAGES)
    assert STAGES[-1].limit_s == 0 and limited <= TOTAL_S - 45


def check(tmp_path: Path, seconds: float = 60) -> Check:
    return Check(tmp_path, "cpu", True, time.monotonic() + seconds)


def run_stage(made: Check, code: str, limit: float = 60) -> dict:
    """A stage whose process runs `code`."""
    held = made.record.begin("memory", "Made up")
    made._command = lambda stage, limit: [sys.executable, "-u", "-c", code]  # type: ignore[method-assign]
    ended, last = made._process(Stage("memory", "", "", (), limit), limit, held)
    return held | {"code": ended, "last": list(last)}


def test_what_a_stage_told_before_it_broke_is_kept(tmp_path: Path) -> None:
    made = check(tmp_path)
    code = 'print(\'@rows [{"a": 1}]\'); print(\'@facts {"b": 2}\'); raise SystemExit("broken")'
    held = run_stage(made, code)
    assert held["code"] == 1 and held["last"] == ["broken"]
    written = json.loads((tmp_path / "gpu.json").read_text())["stages"][0]
    assert written["rows"] == [{"a": 1}] and written["facts"] == {"b": 2}


def test_a_stage_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('@facts {\"child\": %d}' % child.pid, flush=True)\n"
        "child.wait()"
    )
    held = run_stage(check(tmp_path), code, limit=10)
    assert held["code"] is None
    state = Path(f"/proc/{held['facts']['child']}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_failing_stage_does_not_keep_the_next_from_running(tmp_path: Path) -> None:
    made = check(tmp_path)
    for code in ("raise SystemExit(3)", "pass"):
        made._command = lambda *_, code=code: [sys.executable, "-c", code]  # type: ignore[method-assign]
        made._stage(Stage("memory", "Made up", "", (), 60))
    states = [stage["state"] for stage in made.record.data["stages"]]
    assert states == ["failed (3)", "passed"]


def test_no_stage_begins_without_time(tmp_path: Path) -> None:
    made = check(tmp_path, seconds=1)
    made._stage(Stage("memory", "Made up", "", (), 60))
    assert made.record.data["stages"][0]["state"] == "no time left"


@pytest.mark.parametrize(
    ("rate", "plain", "far"), [(3400, 3420, False), (1000, 1001, True), (3400, 4000, True)]
)
def test_the_profile_is_taken_where_the_aim_is_far(
    tmp_path: Path, rate: float, plain: float, far: bool
) -> None:
    made = check(tmp_path)
    held = made.record.begin("speed", "Speed")
    held["rows"] = [
        SPEED | {"name": "batch 8", "fft": fft, "samples_per_s": speed}
        for fft, speed in ((True, rate), (False, plain))
    ]
    assert made.far() is far


def test_the_page_shows_speeds_beside_the_published_hours(tmp_path: Path) -> None:
    record = Record(tmp_path, {"rehearsal": False, "gpu": "Made | up"})
    held = record.begin("speed", "Speed")
    energy = {"joules_per_1000_samples": 123.4}
    held["rows"] = [
        SPEED | {"name": "batch 8", "fft": fft, "samples_per_s": speed, "energy": energy}
        for fft, speed in ((False, 4080.0), (True, 4000.0))
    ]
    held["facts"] = {"published": [{"name": "published", "hours": 44.17, "hours_fft": 156.67}]}
    record.write()
    page = (tmp_path / "gpu.md").read_text()
    assert "| batch 8 | 8 | 4080 | 4000 | 2.00 | 1 | 1 | 123.4 |  |" in page
    assert "44.17 | 156.7" in page and "Made / up" in page
    assert "batch 8, 4000 samples/s (aim 3300)" in page
