"""Compile the native engine, where there is a C++ compiler; everything else is in pyproject.toml.

The same sources are compiled once for each level of instruction sets, into libraries with a plain C
interface; they use nothing of Python, so one wheel serves every version. trackserve.engines.native loads the best one that the processor can run. Where compilation fails
the package installs without, and the reference engine serves.
"""

import copy
import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# How the sources are compiled, and with what instructions each variant: native/CMakeLists.txt reads it, too.
_LINES = (Path(__file__).parent / "native/flags.txt").read_text(encoding="utf-8").splitlines()
_FLAGS = {
    name: flags.split()
    for name, _, flags in (line.partition(":") for line in _LINES if not line.startswith("#"))
}
FLAGS = _FLAGS.pop("all")
VARIANTS = _FLAGS


def variants_of_this_machine() -> dict[str, list[str]]:
    """Return the variants that the processor here can run, or all where Linux lists no instructions."""
    names = {"bmi": "bmi1", "avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16"}
    try:
        known = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return VARIANTS
    return {
        variant: flags
        for variant, flags in VARIANTS.items()
        if {names.get(flag[2:], flag[2:]) for flag in flags} <= known
    }


class BuildInParallel(build_ext):
    """Compile the variants side by side, each with its own folder for objects of the same names."""

    def initialize_options(self) -> None:
        """Use one compiler more than there are cores, so that none idles beside the last variant."""
        super().initialize_options()
        self.parallel = len(os.sched_getaffinity(0)) + 1

    def get_ext_filename(self, fullname: str) -> str:
        """Return a name without the version of Python."""
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        """Compile one variant."""
        alone = copy.copy(self)
        alone.build_temp = str(Path(self.build_temp) / ext.name)
        build_ext.build_extension(alone, ext)


class WheelForEveryPython(bdist_wheel):
    """Name the wheel after the platform alone."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags for Python, its binary interface and the platform."""
        return "py3", "none", super().get_tag()[2]


# The platform that is compiled for: another one where a cross compiler is given in CXX, and
# _PYTHON_HOST_PLATFORM says for what.
x86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))
# A wheel holds every variant; an editable installation by make only those of its own machine.
own = os.environ.get("TRACKSERVE_VARIANTS") == "own"
setup(
    cmdclass={"build_ext": BuildInParallel, "bdist_wheel": WheelForEveryPython},
    ext_modules=[
        Extension(
            f"trackserve.engines.native._kernels_{variant}",
            sources=sorted(map(str, Path("native").glob("*.cpp"))),
            depends=sorted(map(str, Path("native").glob("*.h"))),
            extra_compile_args=[*FLAGS, *instructions, "-pthread"],
            # Not with a static C++ library, whose random numbers would need glibc 2.36; tools/wheels.py.
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
        for variant, instructions in (variants_of_this_machine() if own else VARIANTS).items()
        if x86 or variant == "portable"
    ],
)
