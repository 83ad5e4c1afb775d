"""What the viewer's camera sees, in any napari."""

from __future__ import annotations

from typing import Any

__all__ = ["camera_of", "view_of"]


def camera_of(viewer: Any) -> Any:
    """The viewer's camera, which napari 0.9 has moved into the scene."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def view_of(viewer: Any) -> tuple[float, ...]:
    """What the camera sees: its centre and zoom, to tell whether the user has moved it."""
    camera = camera_of(viewer)
    return (*(float(each) for each in camera.center), float(camera.zoom))
