"""Builds the optional extension that needs other packages' headers; the rest is in pyproject.toml.

Files of other packages are found by their metadata: their folder differs when pip builds in
isolation.
"""

from importlib.metadata import files
from pathlib import Path

from setuptools import Extension, setup


def folder_of(package: str, file: str) -> str:
    """The folder to which `file` of an installed package is relative; "" where it is not."""
    try:
        path = next(path for path in files(package) or [] if path.match(f"*/{file}"))
    except (ImportError, StopIteration):
        return ""
    return str(Path(path.locate()).resolve()).removesuffix(f"/{file}")


onednn = Extension(
    "inception.ops._onednn",
    sources=["inception/ops/_onednn.cc"],
    include_dirs=[
        folder_of("jaxlib", "xla/ffi/api/ffi.h"),
        folder_of("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp"),
    ],
    library_dirs=[folder_of("onednn-cpu-gomp", "libdnnl.so")],
    libraries=["dnnl"],
    extra_compile_args=["-std=c++17"],
    optional=True,
)
setup(ext_modules=[onednn])
