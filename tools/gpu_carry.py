"""Pack what `tools/gpu_check.sh` needs on a machine that has its own CUDA torch and little else.

``python tools/gpu_carry.py`` writes ``carried/site.tar.xz``: the packages that the check imports,
in the versions of ``constraints.txt``, for another Python (``--python 3.12``) on 64-bit Linux,
without their tests. Of this package only the name and version are in it: its code is in ``src``,
which travels with the rest of the source. Torch is not packed, nor what torch brings. What the
machine has already may be left out: ``--have numpy scipy``.

Packing takes some minutes: the file has to be small more than soon.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    # what the package imports on the way through the check
    "h5py", "monai", "numcodecs", "numpy", "olefile", "psutil", "pydantic", "pyyaml",
    "safetensors", "scipy", "tifffile", "tqdm", "typer", "yaozarrs", "zarr",
    # what those import
    "annotated-doc", "annotated-types", "click", "donfig", "google-crc32c", "markdown-it-py",
    "mdurl", "packaging", "pydantic-core", "pygments", "rich", "shellingham",
    "typing-extensions", "typing-inspection",
    # tests, and the energy counter
    "iniconfig", "nvidia-ml-py", "pluggy", "pytest",
)  # fmt: skip
DEBUGGABLE = ("numcodecs",)  # its wheels hold what debuggers want: nine tenths
GLIBC = ("2_28", "2_27", "2_17", "2_12", "2_5")  # of wheels, newest first
LEFT_OUT = ("tests", "test", "__pycache__", "bin")
SUFFIXES = (".pyi", ".h", ".pyx", ".pxd", ".a")
LIMIT = 64 * 2**20  # bytes that may be carried, source included


def install(target: Path, python: str, have: list[str]) -> None:
    """Wheels of `PACKAGES` into a folder, for the other Python."""
    wanted = [name for name in PACKAGES if name not in have]
    platforms = [word for glibc in GLIBC for word in ("--platform", f"manylinux_{glibc}_x86_64")]
    old = ["--platform", "manylinux2014_x86_64", "--platform", "manylinux2010_x86_64"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    other = ["--only-binary=:all:", "--python-version", python, *platforms, *old]
    subprocess.run(
        [
            *pip, "--target", str(target), "--no-deps", "--no-compile", *other,
            "-c", str(ROOT / "constraints.txt"), *wanted,
        ],
        check=True,
    )  # fmt: skip


def add_own_name(target: Path) -> None:
    """Name and version of this package, as its own wheel would have them."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "-w", folder, str(ROOT)], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        shutil.unpack_archive(wheel, folder, "zip")
        made = next(Path(folder).glob("*.dist-info"))
        shutil.copytree(made, target / made.name)


def strip(target: Path) -> None:
    """Take away what only debuggers read, where the machine has the tool for it."""
    if shutil.which("strip") is None:
        return
    for package in DEBUGGABLE:
        for library in sorted((target / package).glob("*.so")):
            subprocess.run(["strip", "--strip-debug", str(library)], check=True)


def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what nobody imports."""
    parts = Path(entry.name).parts
    unwanted = any(part in LEFT_OUT for part in parts) or entry.name.endswith(SUFFIXES)
    return None if unwanted and "pytest" not in entry.name else entry


def main() -> None:
    """Pack, and say how much it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "carried" / "site.tar.xz")
    parser.add_argument("--python", default="3.12", help="version that the machine has")
    parser.add_argument("--have", nargs="*", default=[], help="packages that it has")
    given = parser.parse_args()
    unknown = sorted(set(given.have) - set(PACKAGES))
    if unknown:
        parser.error(
            f"--have {' '.join(unknown)}: not packed anyway; known: {', '.join(PACKAGES)}"
        )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    part = given.out.with_name(given.out.name + ".part")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "site"
        install(target, given.python, given.have)
        strip(target)
        add_own_name(target)
        with tarfile.open(part, "w:xz", preset=6) as archive:
            archive.add(target, ".", filter=kept)
    part.replace(given.out)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    source = sum((ROOT / name).stat().st_size for name in names if (ROOT / name).is_file())
    size = given.out.stat().st_size
    print(
        f"{given.out}: {size / 2**20:.1f} MiB; source {source / 2**20:.1f} MiB; together "
        f"{(size + source) / 2**20:.1f} MiB"
    )
    if size + source > LIMIT:
        print(f"more than {LIMIT / 2**20:.0f} MiB: name what the machine has with --have")


if __name__ == "__main__":
    main()
