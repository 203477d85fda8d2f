"""What a scenario may name: policies, mutants, checks, workloads; each from its owner."""

from __future__ import annotations

import importlib


def _registry(module: str, name: str) -> list[str]:
    try:
        return sorted(getattr(importlib.import_module(module), name))
    except (ModuleNotFoundError, AttributeError):
        return []


def policies() -> list[str]:
    return _registry("vkhost.rmap", "POLICIES")


def mutants() -> list[str]:
    return _registry("vkhost.mutants", "MUTANTS")


def checks() -> list[str]:
    return _registry("vkemu.oracle", "CHECKS")


def workloads() -> list[str]:
    return _registry("vkguest.workloads", "WORKLOADS")


def guest_mutants() -> list[str]:
    return _registry("vkguest.mutants", "MUTANTS")
