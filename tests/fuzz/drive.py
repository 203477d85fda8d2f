"""`python -m tests.fuzz.drive TARGET FOLDER [options of libFuzzer]`: atheris, until it ends."""

from __future__ import annotations

import sys

import atheris

from tests.fuzz.targets import target

if __name__ == "__main__":
    with atheris.instrument_imports(include=["vkprotocol", "vkemu", "vkhost"]):
        one = target(sys.argv[1])
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda data: one(data) and None)
    atheris.Fuzz()
