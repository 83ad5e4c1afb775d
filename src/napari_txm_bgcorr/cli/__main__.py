"""``python -m napari_txm_bgcorr.cli``: the command, where its script is not on the path."""

from . import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
