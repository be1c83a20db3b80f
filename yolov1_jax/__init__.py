"""YOLOv1 in JAX. `yolov1_jax.load(workdir)` gives a trained run as a function of images."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolov1_jax.detector import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # On first use: importing the package, or its NumPy parts, must not import jax.
    if name == "load":
        from yolov1_jax.detector import load

        return load
    if name == "__version__":
        return importlib.metadata.version("yolov1_jax")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
