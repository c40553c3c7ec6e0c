"""Compile the native engine, where there is a C++ compiler; everything else is in pyproject.toml.

The same sources are compiled once for each level of instruction sets, into libraries with a plain C
interface; trackserve.engines.native loads the best one that the processor can run. Where compilation fails
the package installs without, and the reference engine serves.
"""

import copy
import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
VARIANTS = {
    "portable": [],
    "avx2": AVX2,
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512vnni", "-mavx512bf16"],
}
# Products and sums stay apart unless the source says fma: the results must equal numpy's. GCC's own
# headers of intrinsics trip its warning about uninitialised values.
FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
]


class BuildInParallel(build_ext):
    """Compile the variants side by side, each with its own folder for objects of the same names."""

    def initialize_options(self) -> None:
        """Use one compiler more than there are cores, so that none idles beside the last variant."""
        super().initialize_options()
        self.parallel = len(os.sched_getaffinity(0)) + 1

    def build_extension(self, ext: Extension) -> None:
        """Compile one variant."""
        alone = copy.copy(self)
        alone.build_temp = str(Path(self.build_temp) / ext.name)
        build_ext.build_extension(alone, ext)


x86 = platform.machine().lower() in {"x86_64", "amd64"}
setup(
    cmdclass={"build_ext": BuildInParallel},
    ext_modules=[
        Extension(
            f"trackserve.engines.native._kernels_{variant}",
            sources=sorted(map(str, Path("native").glob("*.cpp"))),
            depends=sorted(map(str, Path("native").glob("*.h"))),
            extra_compile_args=[*FLAGS, *instructions, "-pthread"],
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
        for variant, instructions in VARIANTS.items()
        if x86 or variant == "portable"
    ],
)
