"""``python -m napari_txm_bgcorr``: the command, where its script is not on the path."""

from napari_txm_bgcorr.cli import main

if __name__ == "__main__":
    main()
