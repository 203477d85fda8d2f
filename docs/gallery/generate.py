"""Makes this gallery anew: `python docs/gallery/generate.py [FOLDER]`.

Each window is a litmus test that ships with vkemu, explored until it fails, and told.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from vkemu.litmus.decide import decide
from vkemu.litmus.file import Litmus, find_litmus, load_litmus
from vkemu.litmus.token import LitmusToken, identity
from vkemu.report import html, text
from vkemu.report.explored import tell_litmus
from vkemu.report.failure import Failure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Exhibit:
    """A test, the policy and variant it fails with, and the policies to compare with."""

    window: str
    policy: str
    variant: str = ""
    others: tuple[str, ...] = ()
    # The oracle stops a run at the first thing that is wrong. With fewer checks it goes on to what
    # comes of it: the file in the gallery says which.
    checks: tuple[str, ...] = ()


EXHIBITS = (
    Exhibit("W01", "vptmapped", "interlock-off"),
    Exhibit("W06", "extent_scan", others=("pv_entry", "vptmapped"), checks=("freed-access",)),
    Exhibit("W07", "vptmapped", others=("pv_entry", "broadcast"), checks=("freed-access",)),
    Exhibit("W12", "vptmapped", others=("pv_entry", "broadcast")),
    Exhibit("W24", "vptmapped", "keeps-cr3"),
    Exhibit("W29", "pv_entry", "wake-one"),
)


def make(exhibit: Exhibit, folder: Path) -> tuple[Litmus, Failure]:
    """Explore, tell, write: the file, its failure text and its report."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = find_litmus(exhibit.window)
    file = folder / shipped.name
    file.write_text(with_checks(shipped.read_text(), exhibit.checks))
    litmus = load_litmus(str(file), exhibit.variant)
    decision = decide(litmus, exhibit.policy, max_executions=5000)
    failure = decision.failure
    assert failure is not None, f"{litmus.name} does not fail on {exhibit.policy}"
    # As from the top of the checkout, wherever it is made now.
    source = f"docs/gallery/{exhibit.window}/{file.name}" if exhibit.checks else exhibit.window
    head = (source, exhibit.policy, exhibit.variant, identity(litmus))
    others = {f"policy {name}": (litmus, name) for name in exhibit.others}
    if exhibit.variant:
        others["the test without this variant"] = (load_litmus(str(file)), exhibit.policy)
    replay = f"vkemu replay {LitmusToken(*head, failure.token)}"
    told = tell_litmus(litmus, exhibit.policy, failure.schedule, replay=replay, others=others)
    (folder / "failure.txt").write_text(text.render(told))
    (folder / "report.html").write_text(html.render(told))
    return litmus, told


def with_checks(test: str, checks: tuple[str, ...]) -> str:
    """The test, with these checks only."""
    if not checks:
        return test
    line = f"checks = [{', '.join(map(repr, checks))}]".replace("'", '"')
    return test.replace("[litmus]\n", f"[litmus]\n{line}\n", 1)


def index(made: list[tuple[Exhibit, Litmus]]) -> str:
    """The page that leads to all of them."""
    lines = [
        "# Six windows",
        "",
        "Each is a litmus test that ships with vkemu, on a design that leaves it open: the test,",
        "what `failure.txt` says of it, and the report to walk through (it opens offline).",
        "Made by `python docs/gallery/generate.py`; a test compares it with what is made now.",
        "",
        "| Window | What happens | Fails on | Test | Failure | Report |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for exhibit, litmus in made:
        name = exhibit.window
        source = find_litmus(name).name
        design = exhibit.policy + (f", {exhibit.variant}" if exhibit.variant else "")
        lines.append(
            f"| {name} | {litmus.file.litmus.title} | {design} | [{source}]({name}/{source})"
            f" | [failure.txt]({name}/failure.txt) | [report.html]({name}/report.html) |"
        )
    return "\n".join(lines) + "\n"


def main(folder: Path = HERE) -> None:
    made = [(exhibit, make(exhibit, folder / exhibit.window)[0]) for exhibit in EXHIBITS]
    (folder / "README.md").write_text(index(made))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
