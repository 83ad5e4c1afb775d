"""Talks to `kill_server`, which all tests of an interpreter share: torch loads once."""

import os
import struct
import subprocess
import sys
from pathlib import Path


class Server:
    """The process, and the folder of the test that uses it now."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        self.stderr = errors.open("w")
        self.folder = errors.parent
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.kill_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def use(self, folder: Path) -> "Server":
        self.folder, self._said = folder, self.errors.stat().st_size
        return self

    def said(self) -> list[str]:
        """Lines of errors since this test began."""
        return self.errors.read_text()[self._said :].splitlines()

    def ask(self, line: str) -> int:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, limit="") -> int:
        (self.folder / "progress").write_bytes(struct.pack("q", -1))
        return self.ask(f"run {self.run} {self.folder / 'progress'} {limit}")

    def wait(self) -> int:
        return self.ask("wait")

    def done(self) -> int:
        """Last step that the process finished, -1 before its first."""
        return struct.unpack("q", (self.folder / "progress").read_bytes())[0]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.stderr.close()
