"""Headless rendering: the choice of a GL library, and one camera's frames."""

import atexit
import ctypes.util
import importlib
import os
from typing import Any

import numpy as np

from common.errors import UserError

# MuJoCo's name of a backend -> the library that it loads, in order of preference: EGL uses a GPU where there is one.
_BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}
_PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6"}


def choose_gl() -> str | None:
    """Point MuJoCo, robosuite and PyOpenGL at a GL library that this machine has; None where it has none.

    To be called before any of them is imported: robosuite 1.4.1 loads EGL on import, and fails without it, unless told
    otherwise ("glx" makes it load nothing but the glfw wheel).
    """
    available = [name for name, library in _BACKENDS.items() if ctypes.util.find_library(library)]
    wish = os.environ.get("MUJOCO_GL", "").lower()
    chosen = wish if wish in available else next(iter(available), None)
    os.environ["MUJOCO_GL"] = chosen or "glx"
    if chosen is not None:
        os.environ["PYOPENGL_PLATFORM"] = chosen
    return chosen


class CameraRenderer:
    """Renders one camera of a model offscreen."""

    def __init__(self, model: Any, data: Any, camera: str, size: tuple[int, int]) -> None:
        """
        Args:
            model, data: ``mujoco.MjModel`` and ``MjData``.
            camera: the camera's name in the model.
            size: (height, width) in pixels.

        Raises:
            UserError: no GL library is installed, the one that is does not work, or the model has no such camera.
        """
        backend = choose_gl()
        if backend is None:
            raise UserError(
                "rendering needs a GL library and this machine has neither EGL nor OSMesa. On Debian or Ubuntu: "
                f"'apt-get install -y {_PACKAGES['egl']}' (uses a GPU where there is one) or "
                f"'apt-get install -y {_PACKAGES['osmesa']}'."
            )
        import mujoco

        cameras = [model.camera(i).name for i in range(model.ncam)]
        if camera not in cameras:
            raise UserError(f"there is no camera {camera!r}: this model has {', '.join(cameras)}.")
        height, width = size
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        # mujoco.Renderer would use the backend that was chosen when mujoco was first imported, by whomever.
        try:
            self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        except Exception as error:  # whatever this machine's driver makes PyOpenGL raise
            other = "osmesa" if backend == "egl" else "egl"
            raise UserError(
                f"rendering by {backend} is installed and does not work here ({error}). Mend its driver, or install "
                f"the other library ('apt-get install -y {_PACKAGES[other]}') and set MUJOCO_GL={other}."
            ) from error
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._options = mujoco.MjvOption()
        # robosuite keeps collision shapes in group 0 and what is to be seen in group 1.
        self._options.geomgroup[:] = [0, 1, 0, 0, 0, 0]
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = cameras.index(camera)
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._model, self._data = model, data
        self._mujoco = mujoco
        # Before mujoco.egl, whose own hook was registered earlier, ends EGL.
        atexit.register(self.close)

    def render(self) -> np.ndarray:
        """The camera's view of the present, forwarded state: (height, width, 3) uint8."""
        mujoco = self._mujoco
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, self._data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._viewport, self._context)
        return pixels[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the GL context."""
        atexit.unregister(self.close)
        self._gl.make_current()
        self._context.free()
        self._gl.free()
