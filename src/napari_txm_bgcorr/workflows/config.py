"""What the user asked of `txm-bgcorr correct`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_txm_bgcorr.backgrounds.captured import COMBINE
from napari_txm_bgcorr.errors import ConfigError

from .shards import parse_shard

__all__ = ["FORMATS", "PARTS", "CorrectOptions"]

PARTS = ("raw", "background", "corrected", "mask", "uncertainty")
FORMATS = ("omezarr", "ometiff", "tiff")


@dataclass(frozen=True)
class CorrectOptions:
    """What the user asked for, checked.

    Attributes
    ----------
    method, model, device : str
        As in the method table, a model's name, file or run folder, and a device name.
    references, darks : tuple of Path
        Files or folders of reference images and of dark images.
    save : tuple of str
        Some of ``raw``, ``background``, ``corrected``, ``mask``, ``uncertainty``.
    format : str
        ``omezarr``, ``ometiff`` or ``tiff``.
    scheduler : str or None
        Where other processes do the work; see `cli.distributed`.
    shard : str or None
        ``I/N``: this process does one share of N; ``join``: it only completes the output.
    told : bool
        Say on stderr that another share is waited for, even where nobody sits there.
    stitch : bool
        Also blend the corrected tiles of a mosaic into one picture.
    joint : bool or None
        Refine the backgrounds of a whole mosaic or series together; None: as the method does.
    combine : str or None
        How ``captured`` makes one of several references; None: as it does by itself.
    i0 : float or None
        Counts of the open beam, dark removed, for the level of what is refined together.
    write_positions : bool
        Also write the registered places of a mosaic's tiles for Fiji.
    """

    method: str = "auto"
    model: str = "default"
    device: str = "auto"
    references: tuple[Path, ...] = ()
    darks: tuple[Path, ...] = ()
    grid: tuple[int, int] | None = None
    pixel_nm: float | None = None
    save: tuple[str, ...] = ("background", "corrected")
    format: str = "omezarr"
    overwrite: bool = False
    force: bool = False
    quiet: bool = False
    stitch: bool = False
    joint: bool | None = None
    combine: str | None = None
    i0: float | None = None
    write_positions: bool = False
    scheduler: str | None = None
    shard: str | None = None
    told: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside the tables.

        Raises
        ------
        ConfigError
            Naming the option, the value and what is allowed.
        """
        for part in self.save:
            if part not in PARTS:
                raise ConfigError(f"--save {part}: not a part; choose from {', '.join(PARTS)}")
        if not self.save:
            raise ConfigError("--save: nothing to save; give for example background,corrected")
        if self.format not in FORMATS:
            raise ConfigError(f"--format {self.format}: choose from {', '.join(FORMATS)}")
        if self.combine is not None and self.combine not in COMBINE:
            raise ConfigError(f"--combine {self.combine}: choose from {', '.join(COMBINE)}")
        if self.combine is not None and self.method != "captured":
            raise ConfigError(
                f"--combine {self.combine}: not for --method {self.method}; choose --method "
                "captured, or leave --combine out"
            )
        self._check_uncertainty()
        self._check_sharing()

    def _check_uncertainty(self) -> None:
        """Refuse to save what the method does not state."""
        if "uncertainty" not in self.save:
            return
        from napari_txm_bgcorr.backgrounds.registry import JOINT_BY_DEFAULT

        by_default = self.method in JOINT_BY_DEFAULT
        if not (by_default if self.joint is None else self.joint):
            method = f"{self.method} --no-joint" if by_default else self.method
            remedy = "leave out --no-joint" if by_default else "add --joint, choose --method auto"
            raise ConfigError(
                f"--save uncertainty: --method {method} states none; {remedy}, or leave "
                "uncertainty out"
            )

    def _check_sharing(self) -> None:
        """Refuse what several processes cannot do with one output."""
        if self.shard is None and self.scheduler is None:
            return
        option = "--shard" if self.shard is not None else "--scheduler"
        if self.shard is not None and self.scheduler is not None:
            raise ConfigError("--shard: not together with --scheduler; choose one of them")
        if self.format != "omezarr":
            raise ConfigError(
                f"--format {self.format}: {option} writes omezarr only, where each tile is a "
                "chunk of its own; leave --format out"
            )
        if self.shard is not None:
            parse_shard(self.shard)
            if self.overwrite:
                raise ConfigError(
                    "--shard: not together with --overwrite, since no process knows which began; "
                    "remove the old output first"
                )
