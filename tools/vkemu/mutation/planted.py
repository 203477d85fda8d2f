"""A module of the kernels as a mutant has it: compiled from another text as it is imported."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Final

import vkguest
import vkhost

ROOT: Final = Path(vkhost.__file__).parent.parent


def sources() -> list[Path]:
    """The modules of both kernels and the reverse maps, in the order of their names."""
    found = [p for package in (vkguest, vkhost) for p in Path(package.__path__[0]).rglob("*.py")]
    # What of them is not the kernel: programs, switches, and machine code by another's hand.
    left_out = ("mutants.py", "quirks.py", "config.py", "tree.py", "asm.py", "lockorder.py")
    return sorted(p for p in found if p.name not in left_out and p.parent.name != "workloads")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


class _Loader(SourceLoader):
    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return self.text.encode()

    def path_stats(self, path: str) -> Any:
        raise OSError  # nothing is cached


class _Finder(MetaPathFinder):
    def __init__(self, name: str, path: str, text: str) -> None:
        self.name = name
        self.loader = _Loader(path, text)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.loader.path, loader=self.loader
        )


def plant(path: Path, text: str) -> None:
    """From here on `path` is `text`, for all that is imported: what has been is forgotten."""
    for loaded in [n for n in sys.modules if n.partition(".")[0] in ("vkhost", "vkguest", "vkemu")]:
        del sys.modules[loaded]
    sys.meta_path.insert(0, _Finder(module_name(path), str(path), text))


def main() -> None:
    """A mutant, as JSON on stdin, against checks; the first that notices it, as JSON."""
    asked = json.load(sys.stdin)
    plant(Path(asked["path"]), asked["text"])
    from vkemu.mutation.trial import perform

    done = {"status": "survived"}
    for check in asked["checks"]:
        verdict, said = perform(check)
        # A run that ends without the mutant has to end with it.
        if verdict == "fail" or (verdict == "unknown" and check.startswith("run")):
            done = {"status": "noticed", "by": check, "said": said}
            break
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
