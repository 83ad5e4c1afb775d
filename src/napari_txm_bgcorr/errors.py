"""Errors a user can act on: each message names the value, the place and the remedy."""

__all__ = [
    "AlreadyCorrectedError",
    "ConfigError",
    "DeviceError",
    "MethodError",
    "ModelError",
    "ReadError",
    "StoppedError",
    "TxmError",
    "WriteError",
]


class TxmError(Exception):
    """Base of every error that is shown to the user as one line, without a traceback."""


class ReadError(TxmError):
    """A file cannot be read as what it claims to be."""


class WriteError(TxmError):
    """An output cannot be written (folder in the way, disk full, no permission)."""


class ConfigError(TxmError):
    """A setting, command-line value or configuration file is not usable."""


class MethodError(TxmError):
    """A background method cannot work on this scan (no reference, too few tiles)."""


class ModelError(TxmError):
    """Weights or their card are damaged, foreign or do not match the network."""


class DeviceError(TxmError):
    """The chosen device is missing, or ran out of memory or failed while computing."""


class AlreadyCorrectedError(TxmError):
    """The input is itself a corrected result; correcting it again would falsify it."""


class StoppedError(TxmError):
    """The work was asked to stop before it was done; nothing is wrong."""
