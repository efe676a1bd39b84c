"""Marks the wheel as one of this platform, for any Python: it holds programs and no extension module."""

import os

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class Programs(Distribution):
    def has_ext_modules(self):
        return True


class OfPlatform(bdist_wheel):
    def get_tag(self):
        # scripts/dist finds out which glibc the programs need.
        return "py3", "none", os.environ.get("PFC_PLATFORM") or super().get_tag()[2]


setup(distclass=Programs, cmdclass={"bdist_wheel": OfPlatform})
