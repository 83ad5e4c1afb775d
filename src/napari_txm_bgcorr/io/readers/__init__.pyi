from .dispatch import read
from .tile_layout import parse_tile_configuration, tile_configuration_text

__all__ = ["parse_tile_configuration", "read", "tile_configuration_text"]
