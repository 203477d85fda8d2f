"""docs/litmus.md and the keys of docs/scenarios.md: `python -m tests.docs.reference_page`."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

from vkemu.launch import names
from vkemu.launch.reference import TABLES as SCENARIO
from vkemu.launch.reference import markdown as keys
from vkemu.litmus.reference import KINDS, TABLES, markdown
from vkemu.oracle import ABOUT, CHECKS, DEFAULT_CHECKS

from tests.docs import summary_page
from vkguest.workloads import WORKLOADS
from vkhost.mutants import MUTANTS

DOCS = Path(__file__).parents[2] / "docs"
HEAD = "## Reference\n"


def litmus() -> str:
    lines = [HEAD, "Generated from the tables that check the files; `vkemu explore --verbs` prints"]
    lines += ["the same.", "", "### Threads", ""]
    lines += [f"- `{kind}`: {what}." for kind, what in KINDS.items()]
    lines += ["", "### Verbs", "", *markdown(), "", *keys(TABLES), *named()]
    return "\n".join(lines)


def scenarios() -> str:
    lines = [
        HEAD,
        "Generated from the tables that check the files; `vkemu run --keys` prints the same.",
    ]
    lines += ["", *keys(SCENARIO), "### Workloads", ""]
    lines += ["| Name | | With every parameter |", "| --- | --- | --- |"]
    for name, made in WORKLOADS.items():
        about = " ".join((made.__doc__ or "").split())
        lines.append(f"| {name} | {about.partition('. ')[0].rstrip('.')} | `{in_full(name)}` |")
    return "\n".join([*lines, "", *named()])


def in_full(workload: str) -> str:
    """With its defaults: `touch:pages=4,rounds=2`."""
    parameters = signature(WORKLOADS[workload]).parameters.values()
    return f"{workload}:{','.join(f'{p.name}={p.default}' for p in parameters)}"


def named() -> list[str]:
    """What a file may name, and what it is."""
    lines = ["### Policies", "", '`policy = "NAME"`, `--policy NAME`', "", "| Name | |"]
    lines += ["| --- | --- |"]
    lines += [f"| {name} | {summary_page.design(name)} |" for name in names.policies()]
    lines += ["", "### Checks", "", '`checks = ["NAME"]`; the number is the invariant\'s', ""]
    lines += ["| Name | | Default | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {CHECKS[name] or '-'} | {'yes' if name in DEFAULT_CHECKS else 'no'} | "
        f"{ABOUT[name]} |"
        for name in names.checks()
    ]
    lines += ["", "### Mutants", "", '`mutants = ["NAME"]`, `vkemu run --mutant NAME`', ""]
    lines += ["| Name | |", "| --- | --- |"]
    lines += [f"| {name} | {MUTANTS[name].description} |" for name in names.mutants()]
    return [*lines, ""]


def pages() -> dict[Path, str]:
    made = {DOCS / "litmus.md": litmus(), DOCS / "scenarios.md": scenarios()}
    return {page: page.read_text().partition(HEAD)[0] + text for page, text in made.items()}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
