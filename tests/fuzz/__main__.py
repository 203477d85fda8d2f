"""`python -m tests.fuzz TARGET SECONDS`: look for inputs that reach more code, and keep them.

Needs atheris (`pip install atheris`), which guides by coverage and lets Hypothesis make values of
its bytes, so that what is found here is found by the property in the tests too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz.targets import NAMES, corpus, inputs

BYTES = 1024  # of an input
FRESH = 20  # random ones to begin with
INPUTS = 150  # kept, the shortest


def main(name: str, seconds: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(inputs(name)):
            Path(folder, f"{number:05}").write_bytes(data)
        # Of short inputs Hypothesis makes short values, or none: long ones from the start.
        random = Random(1)
        for number in range(FRESH):
            Path(folder, f"fresh{number}").write_bytes(random.randbytes(BYTES))
        options = [
            f"-max_total_time={seconds}", f"-max_len={BYTES}", "-len_control=0",
            f"-artifact_prefix={name}-",
        ]  # fmt: skip
        drive = [sys.executable, "-m", "tests.fuzz.drive", name, folder, *options]
        status = subprocess.run(drive, check=False).returncode
        found = {
            path.read_bytes().hex()
            for path in Path(folder).iterdir()
            if not path.name.startswith("fresh")
        }
    kept = sorted(found - {""}, key=lambda line: (len(line), line))[:INPUTS]
    corpus(name).write_text("".join(f"{line}\n" for line in kept))
    return status


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in NAMES or not sys.argv[2].isdigit():
        sys.exit(f"usage: python -m tests.fuzz {'|'.join(NAMES)} SECONDS")
    sys.exit(main(sys.argv[1], sys.argv[2]))
