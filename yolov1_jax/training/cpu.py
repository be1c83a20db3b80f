"""Two settings that make a CPU faster; the model stays the same, up to rounding.

On other devices, and where the system or jaxlib lacks them, both do nothing.
"""

import ctypes
import functools
import sys

import jax

# jaxlib hands convolutions to the library YNNPACK, whose gradients of the weights are several times
# slower than XLA's own. Products and sums stay with the library, which is faster there.
_LIBRARY_FOR = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """For jax.jit's argument of this name; None where the defaults are best."""
    if jax.default_backend() != "cpu":
        return None
    options = {"xla_cpu_experimental_ynn_fusion_type": _LIBRARY_FOR}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(1.0).compile()
    except jax.errors.JaxRuntimeError:  # a jaxlib that does not know the option
        return None
    return options


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next step, which needs as much; call it at start."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda parameter, value: 0)
        mallopt(-4, 0)  # M_MMAP_MAX in malloc.h
        mallopt(-1, -1)  # M_TRIM_THRESHOLD
