"""Options that would have no effect beside others, or without them: they are refused, by one table.

What depends on more than the options themselves - on the kind of file or token, say - is refused by
the command that has looked at it.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from vkemu.verdict import UsageError

# Of a command: options, `with` or `without`, and what they are expected with or without.
RULES: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "explore": (
        ("--strategy --max-executions --max-seconds --max-steps", "without", "--replay"),
        ("--seed --all --livelock --registers --witnesses", "without", "--replay"),
        ("--jobs --on --checkpoint", "without", "--replay"),
        ("--jobs", "without", "--on"),
    ),
    "run": (("--jobs", "without", "--on"), ("--backend", "with", "--live")),
    "matrix": (("--jobs", "without", "--on"),),
    "compare": (("--jobs", "without", "--on"),),
    "check": (("--jobs", "without", "--on"),),
    "mutants": (
        ("--jobs", "without", "--on"),
        ("--seconds --tests --jobs --on --checkpoint", "without", "--list"),
        ("--sample --seed --seconds --tests", "with", "--generate"),
    ),
    "log show": (
        ("--columns --color", "without", "--json"),
        ("--last", "without", "--follow"),
        ("--last", "without", "--first"),
    ),
    "log windows": (("--worst", "without", "--json"),),
    "log shipped": (("--jq", "without", "--lnav"),),
    "serve": (("--tls-key", "with", "--tls-cert"), ("--zstd", "with", "--runs")),
    "guest": (
        (
            "-m -n -e -i -z -c -d -I -l -r -R -s -t -T -U --run --program --swap",
            "without", "--scenario",
        ),
        ("--set", "with", "--scenario"),
    ),
}  # fmt: skip


def check_effect(command: str, given: Set[str]) -> None:
    """`given`: the options that were typed."""
    for options, how, other in RULES.get(command, ()):
        for option in options.split():
            if option in given and (other in given) is (how == "without"):
                raise UsageError(f"vkemu {command}: {option}, expected {how} {other}")
