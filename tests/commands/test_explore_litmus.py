"""`vkemu explore` of litmus tests: in several processes, and with a checkpoint."""

from __future__ import annotations

import re

import pytest

from tests.commands.conftest import Shell


def herd(out: str) -> str:
    """What is printed of a litmus test, but for what depends on how the work was divided: steps
    taken again, executions abandoned, seconds."""
    return re.sub(r"^(\w+: [\d,]+ executions,)(?: [\d,]+ blocked,)?( .*exhausted), .*$", r"\1\2",
                  out, flags=re.MULTILINE)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "counts"),
    [
        (("W15", "--all"), "24"),
        (("W09", "--policy", "vptmapped"), "2"),
        (("W24", "--variant", "keeps-cr3", "--strategy", "pos", "--max-executions", "100"), "4"),
    ],
)
def test_a_litmus_test_says_the_same_however_many_jobs(
    explore: Shell, argv: tuple[str, ...], counts: str
) -> None:
    """It was explored in one process, with a note."""
    status, one, err = explore(*argv)
    assert (len(one) > 200, err) == (True, "")
    for jobs in counts:
        again, out, err = explore(*argv, "--jobs", jobs)
        assert (again, err, herd(out)) == (status, "", herd(one))


@pytest.mark.parametrize(
    ("argv", "half"), [(("W15",), "10"), (("W09", "--policy", "vptmapped", "--all"), "20")]
)
def test_the_outcomes_of_a_litmus_test_are_saved_and_resumed(
    explore: Shell, argv: tuple[str, ...], half: str
) -> None:
    """A checkpoint was refused: outcomes were counted where the test ran, and lost with it."""
    whole = explore.json(*argv)[1]
    saved = (*argv, "--checkpoint", "point")
    first = explore.json(*saved, "--max-executions", half)[1]
    assert (first["executions"], first["exhausted"]) == (int(half), False)
    rest = explore.json(*saved)[1]
    again = explore.json(*saved)[1]
    for key in ("verdict", "executions", "exhausted", "outcomes", "failure"):
        assert rest[key] == again[key] == whole[key]


def test_a_checkpoint_of_another_policy_is_refused(explore: Shell) -> None:
    """Their threads begin with the same steps; taken up, the counts were of both."""
    saved = ("W15", "--checkpoint", "point", "--max-executions", "4")
    assert explore(*saved)[0] == 3
    status, _, err = explore(*saved, "--policy", "notifier")
    assert (status, err) == (2, "W15: checkpoint point: the program is another one\n")


def test_a_search_that_a_failure_ended_stays_ended(explore: Shell) -> None:
    """Taken up again it said exhausted: what was left had not been saved."""
    saved = ("W09", "--policy", "vptmapped", "--checkpoint", "point")
    first = explore.json(*saved)[1]
    again = explore.json(*saved)[1]
    assert (first["verdict"], first["exhausted"]) == ("fail", False)
    for key in ("verdict", "executions", "exhausted", "outcomes", "failure"):
        assert again[key] == first[key]
