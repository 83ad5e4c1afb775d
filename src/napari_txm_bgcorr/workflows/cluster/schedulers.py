"""Workers of `txm-bgcorr correct --scheduler`: at an address, on this machine, or by SLURM."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_txm_bgcorr.core import SILENT, Progress, cpu_cores
from napari_txm_bgcorr.errors import ConfigError, DeviceError, TxmError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["SlurmConfig", "cluster_client", "lost_contact", "read_slurm", "slurm_arguments"]

INSTALL = "install it: pip install 'napari-txm-bgcorr[cluster]'"
CONNECT_S = 20


class SlurmConfig(BaseModel):
    """The file of ``--scheduler slurm:FILE``: what to ask of the queue.

    Attributes
    ----------
    jobs : int
        SLURM jobs to submit; each runs `processes` workers.
    queue, account : str or None
        Partition and account.
    cores, processes : int
        Cores of one job, and workers that share them. One worker for each GPU is right.
    memory, walltime : str
        Of one job, for example ``32GB`` and ``02:00:00``.
    gpus : int
        Of one job; asked for by ``--gres=gpu:N``.
    directives : list of str
        More ``#SBATCH`` lines, without the prefix.
    prologue : list of str
        Shell lines before the worker starts, such as ``module load`` or activating an
        environment.
    python : str or None
        Interpreter on the nodes; None: this one.
    interface, local_directory, log_directory : str or None
        Network interface, scratch folder and folder of the jobs' logs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: int = Field(default=1, ge=1)
    queue: str | None = None
    account: str | None = None
    cores: int = Field(default=4, ge=1)
    processes: int = Field(default=1, ge=1)
    memory: str = "16GB"
    walltime: str = "01:00:00"
    gpus: int = Field(default=0, ge=0)
    directives: list[str] = []
    prologue: list[str] = []
    python: str | None = None
    interface: str | None = None
    local_directory: str | None = None
    log_directory: str | None = None


def read_slurm(path: Path) -> SlurmConfig:
    """Read the file of ``slurm:FILE``, YAML or JSON.

    Raises
    ------
    ConfigError
        Naming file, field and what is wrong with it.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return SlurmConfig.model_validate(values)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; check the path") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {error}; see the page Clusters") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        known = ", ".join(SlurmConfig.model_fields)
        raise ConfigError(f"{path}: {field}: {first['msg']}; fields are {known}") from error


def slurm_arguments(config: SlurmConfig) -> dict[str, Any]:
    """Arguments of `dask_jobqueue.SLURMCluster`."""
    gpus = [f"--gres=gpu:{config.gpus}"] if config.gpus else []
    given = config.model_dump(exclude={"jobs", "gpus", "directives", "prologue"})
    return {
        **{name: value for name, value in given.items() if value is not None},
        "job_extra_directives": gpus + config.directives,
        "job_script_prologue": config.prologue,
    }


@contextmanager
def cluster_client(where: str, progress: Progress = SILENT) -> Iterator[Client]:
    """Connect to the scheduler that `where` names; what this starts it also ends.

    Parameters
    ----------
    where : str
        ``tcp://host:port``, ``tls://...``, ``host:port``, a scheduler file (``.json``),
        ``local:N`` or ``slurm:FILE``.
    progress : Progress
        Told that workers are awaited.

    Raises
    ------
    ConfigError
        If it is none of these, a package is missing, or nothing answers there.
    """
    kind, _, rest = where.partition(":")
    distributed = _package("distributed")
    with ExitStack() as stack:
        stack.enter_context(_hushed("distributed.client"))
        # a batch tool needs no dashboard; its page would look for a free port on every start
        target: Any = where
        if kind == "local":
            target = stack.enter_context(_local(_count(where, rest)))
        elif kind == "slurm":
            target = stack.enter_context(_slurm(read_slurm(Path(rest))))
        elif not (re.fullmatch(r"((tcp|tls|ucx)://)?[^\s/:]+:\d+", where) or _is_file(where)):
            raise ConfigError(
                f"--scheduler {where}: give tcp://HOST:PORT, a scheduler's file, local:N or "
                "slurm:FILE"
            )
        try:
            given = {"scheduler_file": where} if _is_file(where) else {"address": target}
            client = stack.enter_context(distributed.Client(**given, timeout=CONNECT_S))
        except (OSError, ValueError) as error:  # includes time-outs
            raise ConfigError(
                f"--scheduler {where}: no scheduler answers there within {CONNECT_S} s; "
                "check that dask scheduler runs and that no firewall is between"
            ) from error
        if not client.scheduler_info()["workers"]:
            progress.say(f"waiting for a worker of {where} ...")
        client.wait_for_workers(1)
        _same_program(client, where)
        yield client


def _same_program(client: Client, where: str) -> None:
    """Refuse a scheduler or worker that would end at the first task, or make other bits."""
    name = "napari_txm_bgcorr"
    found = client.get_versions(packages=[name])
    if isinstance(found, Coroutine):
        raise RuntimeError("the client of the scheduler is an asynchronous one")
    ours = found["client"]["packages"].get(name)
    places = {f"worker {address}": facts for address, facts in found["workers"].items()}
    for place, facts in {"the scheduler": found["scheduler"], **places}.items():
        theirs = facts["packages"].get(name)
        if theirs != ours:
            raise ConfigError(
                f"--scheduler {where}: {place} has napari-txm-bgcorr {theirs or 'not installed'}, "
                f"here it is {ours}; install the same version there"
            )


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """Keep a logger quiet: a lost scheduler is told in one line, without its traceback."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_file(where: str) -> bool:
    return where.endswith(".json") and Path(where).is_file()


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"--scheduler: the package {name} is missing; {INSTALL}") from error


def _count(where: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--scheduler {where}: give a number of processes, for example local:4")
    return int(text)


def _local(count: int) -> Any:
    """Scheduler and `count` worker processes on this machine, a GPU each where there are some."""
    distributed = _package("distributed")
    gpus = _visible(_gpus())
    threads = max(1, cpu_cores() // count)
    workers = {
        k: {
            "cls": distributed.Nanny,  # starts a lost worker again
            "options": {
                "nthreads": 1 if gpus else threads,
                "memory_limit": 0,  # tiles stream through; nothing is kept that dask could spill
                "dashboard": False,
                "env": {"CUDA_VISIBLE_DEVICES": gpus[k % len(gpus)]} if gpus else {},
                "silence_logs": "CRITICAL",
                "preload": ["napari_txm_bgcorr.workflows.cluster.worker_start"],
            },
        }
        for k in range(count)
    }
    scheduler = {
        "cls": distributed.Scheduler,
        # Its page is off, its web server is not: any free port, so that two runs never meet.
        "options": {
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "host": "127.0.0.1",
            "port": 0,
        },
    }
    return distributed.SpecCluster(workers=workers, scheduler=scheduler, silence_logs="CRITICAL")


def _gpus() -> int:
    """Number of NVIDIA devices; torch is not loaded where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return 0
    from napari_txm_bgcorr.models import list_devices

    return sum(device.name.startswith("cuda") for device in list_devices())


def _visible(count: int) -> list[str]:
    """Names of the devices in ``CUDA_VISIBLE_DEVICES``; the others may belong to other jobs."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [name for name in given if name]
    return named[:count] if named else [str(k) for k in range(count)]


@contextmanager
def _slurm(config: SlurmConfig) -> Iterator[Any]:
    """Scheduler in this process, workers as SLURM jobs; the jobs are cancelled at the end."""
    jobqueue = _package("dask_jobqueue")
    with jobqueue.SLURMCluster(**slurm_arguments(config)) as cluster:
        cluster.scale(jobs=config.jobs)
        yield cluster


@contextmanager
def lost_contact(where: str | None) -> Iterator[None]:
    """Turn a failure of the cluster, not of the work, into one error.

    Raises
    ------
    DeviceError
        If a task ended several workers one after the other, or the scheduler is gone.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except TxmError:
        raise
    except KilledWorker as error:
        raise DeviceError(
            f"--scheduler {where}: one task ended several workers, mostly for lack of memory; "
            "give workers more memory and run again to go on"
        ) from error
    except RuntimeError as error:
        if "deserialization" not in str(error):
            raise
        raise DeviceError(
            f"--scheduler {where}: the scheduler or a worker has another environment; "
            "install the same version of this program and of dask there"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise DeviceError(
            f"--scheduler {where}: the scheduler is gone or gave the work up; "
            "start it and run again to go on"
        ) from error
