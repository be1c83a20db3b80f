"""What XLA has compiled is kept between programs, so that the next start of a command is faster."""

import tempfile
import warnings

import jax
import platformdirs


def use_compilation_cache() -> None:
    """Turns on JAX's persistent cache in the user's cache folder, before anything is compiled.

    Does nothing if the user has set it (JAX_COMPILATION_CACHE_DIR), or if nothing can be written
    there. The entries that were not used for longest are deleted above 1 GiB.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder = platformdirs.user_cache_path("yolov1_jax", appauthor=False) / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # the latter: there is no home folder
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", 2**30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # A cache that cannot be read or written, on a full disk for example, costs time and no more.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
