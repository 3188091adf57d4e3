"""Memory that was freed goes back to the system: in a class many kernels share one machine. An IPython extension.

`etc/ipython/ipython_kernel_config.py` loads it into every kernel of the environment. Without it glibc keeps what a training
frees, up to 300 MB in notebook 08, for the next one.
"""

import ctypes
import sys

_CPU_BUILD, _CUDA_LIBRARIES = 700e6, 350e6  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the names in glibc's malloc.h


def reach():
    """Bytes that a kernel may hold resident after Run All: some thirty students' kernels on a machine of 24 GiB.

    That is 700 MB. A build of torch for CUDA, as PyPI has it for Linux, holds 300 MB more from its import on.
    """
    import torch  # not above: this module is loaded when a kernel starts

    return _CPU_BUILD if torch.version.cuda is None else _CPU_BUILD + _CUDA_LIBRARIES


def load_ipython_extension(shell):
    """Called by IPython when a kernel starts; where the C library is not glibc, nothing happens."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):
        libc.mallopt(_M_MMAP_THRESHOLD, 8 << 20)  # a block above 8 MB is given back when it is freed
        libc.mallopt(_M_TRIM_THRESHOLD, 16 << 20)
        shell.events.register("post_run_cell", lambda result: libc.malloc_trim(0))  # the smaller ones after each cell
