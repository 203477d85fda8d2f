"""docs/litmus.md and the keys of docs/scenarios.md: `python -m tests.docs.reference_page`."""

from __future__ import annotations

from pathlib import Path

from vkemu.launch import names
from vkemu.launch.reference import TABLES as SCENARIO
from vkemu.launch.reference import markdown as keys
from vkemu.litmus.reference import KINDS, TABLES, markdown

from vkguest.workloads import WORKLOADS

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
    lines += ["| Name | |", "| --- | --- |"]
    for name, made in WORKLOADS.items():
        about = " ".join((made.__doc__ or "").split())
        lines.append(f"| {name} | {about.partition('. ')[0].rstrip('.')} |")
    return "\n".join([*lines, "", *named()])


def named() -> list[str]:
    """What a file may name."""
    policies, checks, mutants = names.policies(), names.checks(), names.mutants()
    found = (("policies", policies), ("checks", checks), ("mutants", mutants))
    lines = ["### Names", ""]
    for what, known in found:
        lines.append(f"- {what}: {', '.join(f'`{name}`' for name in known)}")
    return [*lines, ""]


def pages() -> dict[Path, str]:
    made = {DOCS / "litmus.md": litmus(), DOCS / "scenarios.md": scenarios()}
    return {page: page.read_text().partition(HEAD)[0] + text for page, text in made.items()}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
