"""What only code can say about the build: today nothing.

All metadata stands in ``pyproject.toml``. This file is the place for an optional C extension,
which has to be left out where no compiler is at hand; until there is one, ``setup()`` is all.
"""

from setuptools import setup

setup()
