"""Loads torch once, then forks a training process at each line it reads; prints its pid.

Lines: ``run FOLDER PROGRESS [LIMIT]`` starts (or resumes) the run and writes the last step done
into the file PROGRESS; with LIMIT no file may grow beyond that many bytes, as on a full disk.
``wait`` waits for the process and prints its exit code (negative: the signal that killed it).
``pair FOLDER PORT STOP_AT SPOIL_AT`` trains with two processes, asks them to stop after step
STOP_AT, spoils the second one's data from step SPOIL_AT on, and prints both exit codes as one
number (first times ten plus second).
"""

import os
import resource
import signal
import struct
import sys
from pathlib import Path

import torch

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.training.data import pairs
from napari_txm_bgcorr.training.loop import Trainer, fit, run_training
from tests.training.toy import ToyPairs, toy_config

STEPS, EVERY = 400, 5


def config():
    return toy_config(
        network={"field_px": 16, "features": (4, 8)},
        loss_weights={"l1": 1.0, "fft_l1": 0.1, "adversarial": 0.01},
        adversarial_start=0.1,
        discriminator_features=4,
        discriminator_layers=1,
        batch=2,
        steps=STEPS,
        checkpoint_every=EVERY,
        validate_every=20,
        log_every=10,
    )


def train(folder: Path, progress: Path, limit: int | None) -> int:
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    out = os.open(progress, os.O_RDWR | os.O_CREAT)

    def tell(step):
        os.pwrite(out, struct.pack("q", step.step), 0)

    try:
        run_training(config(), folder, resume=True, device="cpu", on_step=tell)
    except TxmError as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    return 0


def paired():
    """Settings of the run that two processes share."""
    return toy_config(
        network={"field_px": 32, "features": (8, 8, 16)},
        loss_weights={"l1": 1.0, "level": 0.2, "frc": 0.1, "adversarial": 0.01},
        adversarial_start=0.2,
        discriminator_features=8,
        batch=4,
        steps=20,
    )


def share(folder: Path, port: str, stop_at: int, spoil_at: int, rank: int) -> int:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    real = ToyPairs.draw

    def draw(self, index):
        drawn = real(self, index)
        spoilt = rank == 1 and index >= spoil_at
        return drawn._replace(log_raw=drawn.log_raw * float("nan")) if spoilt else drawn

    def stop(step):
        if step.step == stop_at:
            (folder / "stop").touch()

    ToyPairs.draw = draw
    try:
        run_training(paired(), folder, resume=True, device="cpu", on_step=stop)
    except TxmError as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    return 0


def pair(folder: Path, port: str, stop_at: int, spoil_at: int) -> int:
    children = []
    for rank in (0, 1):
        child = os.fork()
        if not child:
            os._exit(share(folder, port, stop_at, spoil_at, rank))
        children.append(child)
    first, second = (os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children)
    return 10 * first + second


def main() -> None:
    pairs.PAIRS["toy"] = ToyPairs
    torch.set_num_threads(1)
    next(fit(toy_config(), Trainer(toy_config(), "cpu")))  # what torch loads late, before forks
    child = 0
    for line in sys.stdin:
        order, *rest = line.split()
        if order == "run":
            child = os.fork()
            if not child:
                limit = int(rest[2]) if len(rest) > 2 else None
                os._exit(train(Path(rest[0]), Path(rest[1]), limit))
            print(child, flush=True)
        elif order == "pair":
            print(pair(Path(rest[0]), rest[1], int(rest[2]), int(rest[3])), flush=True)
        else:
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
