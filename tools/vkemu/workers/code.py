"""Which code this is: a job is done by the code that made it, or not at all."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def code_digest() -> str:
    """Of all our packages, and of the version of Python, which may order what we do not."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    packages = ("vkprotocol", "vkhost", "vkguest", "vkemu")
    kinds = (".py", ".toml", ".asm")  # and the programs that are shipped
    for package in packages:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        names = sorted(f.relative_to(root).as_posix() for f in root.rglob("*") if f.suffix in kinds)
        for name in names:
            content = (root / name).read_bytes()
            digest.update(f"{package}/{name} {len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
