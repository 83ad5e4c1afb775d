"""Camera of the viewer, in any version of napari."""

from __future__ import annotations

from typing import Any

__all__ = ["camera_of", "view_of"]


def camera_of(viewer: Any) -> Any:
    """The viewer's camera, which napari 0.9 has moved into the scene."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def view_of(viewer: Any) -> tuple[float, ...]:
    """Centre and zoom of the camera, to detect that the user has moved it."""
    camera = camera_of(viewer)
    return (*(float(each) for each in camera.center), float(camera.zoom))
