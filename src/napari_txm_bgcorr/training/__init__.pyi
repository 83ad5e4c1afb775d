from .config import DataConfig, TrainConfig, load_config, preset_names
from .energy import EnergyConfig, EnergyMeter, describe
from .loop import run_training
from .losses import LOSSES, fft_l1
from .step import TrainStep

__all__ = [
    "LOSSES",
    "DataConfig",
    "EnergyConfig",
    "EnergyMeter",
    "TrainConfig",
    "TrainStep",
    "describe",
    "fft_l1",
    "load_config",
    "preset_names",
    "run_training",
]
