"""One process of ``atheris_engine.py``: run libFuzzer on one target.

    python -m fuzzing.atheris_process TARGET OPTION...

The code under test has to be imported here for the first time, so that atheris can put in what
tells libFuzzer the way an input took.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module


def main(arguments: Sequence[str]) -> None:
    """Run libFuzzer with its own options; it ends the process.

    Args:
        arguments: the program's name, the target, and libFuzzer's options.
    """
    program, name, *options = arguments
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["websocket"]):
        targets = import_module("fuzzing.targets").TARGETS
    atheris.Setup([program, *options], targets[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
