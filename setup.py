"""What only code can say about the build: the optional C accelerator.

All metadata stands in ``pyproject.toml``. The accelerator is left out on PyPy, and where the
environment says ``REACTOR_WEBSOCKET_PURE=1``. Where it cannot be compiled, one line says so, and
the installation goes on without it.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import sysconfig
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def is_wanted() -> bool:
    """Tell whether to build the accelerator: not for PyPy, whose compiler does better."""
    is_cpython = platform.python_implementation() == "CPython"
    return is_cpython and os.environ.get("REACTOR_WEBSOCKET_PURE") != "1"


def has_stable_abi() -> bool:
    """Tell whether one binary will do for this Python and all later ones.

    The stable ABI has buffers since 3.11; free-threaded builds have no stable ABI.
    """
    return sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")


def build_settings() -> dict[str, Any]:
    """Return what to tell ``setup()``."""
    if not is_wanted():
        return {}
    is_stable = has_stable_abi()
    # The reactor's is about descriptors, which sockets are not on Windows.
    packages = ["websocket"] if sys.platform == "win32" else ["websocket", "reactor"]
    parts = {"websocket": ["_speedups.c", "_speedups_opening.c"], "reactor": ["_speedups.c"]}
    accelerators = [
        Extension(
            f"{package}._speedups",
            sources=[f"{package}/{part}" for part in parts[package]],
            depends=[f"{package}/_speedups.h"] if package == "websocket" else [],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if is_stable else [],
            py_limited_api=is_stable,
            optional=True,
        )
        for package in packages
    ]
    return {
        "ext_modules": accelerators,
        "cmdclass": {"build_ext": BuildAccelerator},
        "options": {"bdist_wheel": {"py_limited_api": "cp311"}} if is_stable else {},
    }


class BuildAccelerator(build_ext):
    """Compile as fast as the compiler can, and tell clearly when it cannot."""

    def build_extension(self, ext: Extension) -> None:
        """Build the accelerator, which is optional: setuptools goes on after an error."""
        if self.compiler.compiler_type == "unix":
            # What Python itself was compiled with may be -O2, which has no vectors in older gcc.
            ext.extra_compile_args = ["-O3"]
        try:
            super().build_extension(ext)
        except Exception:
            message = "reactor-websocket: no C accelerator was compiled, pure Python will do all"
            self.announce(message, level=logging.WARNING)
            raise


if __name__ == "__main__":
    setup(**build_settings())
