"""`vkemu step` on the terminal: pick the next thread, see what changes, go back, save the token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Footer, Header, OptionList, Static
from textual.widgets.option_list import Option as Choice

from vkemu.record.narrate import narrate
from vkemu.stepping.stepper import Stepper

# Panel -> title, and which things of the machine it shows.
PANELS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "maps": ("maps, locks, interlocks", lambda thing: thing.startswith(("map ", "ilock "))),
    "ptes": ("PTEs and VPTEs", lambda thing: thing.startswith(("pte ", "vpte "))),
    "tlbs": ("TLBs and CPUs", lambda thing: thing.startswith(("TLB", "cpu ", "pmap ", "lwp "))),
    "pages": ("pages and queues", lambda thing: thing.startswith("page ")),
}


class StepApp(App[str]):
    """Invariant: every widget shows `stepper` as it is after the last `show`."""

    CSS = """
    #left { width: 46%; }
    #threads { height: 38%; border: round $primary; }
    #story { height: 1fr; border: round $primary; }
    #waiting { height: auto; max-height: 6; color: $text-muted; padding: 0 1; }
    .panel { height: auto; border: round $secondary; padding: 0 1; }
    #changed { border: round $warning; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b,backspace", "undo(1)", "back"),
        Binding("B", "undo(10)", "back 10"),
        Binding("c", "stay", "same thread on"),
        Binding("r", "finish", "run to the end"),
        Binding("s", "save", "save token"),
        Binding("0", "restart", "restart"),
        Binding("q", "quit", "quit"),
        *(Binding(str(n), f"take({n - 1})", show=False) for n in range(1, 10)),
    ]

    def __init__(
        self,
        stepper: Stepper,
        name: str,
        token: Callable[[Stepper], str],
        save_to: Path,
    ) -> None:
        super().__init__()
        self.stepper = stepper
        self.subject = name
        self.token_of = token
        self.save_to = save_to

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal():
            with Vertical(id="left"):
                yield OptionList(id="threads")
                yield Static(id="waiting")
                yield DataTable(id="story", cursor_type="row", zebra_stripes=True)
            with VerticalScroll(id="right"):
                yield Static(id="changed", classes="panel")
                for name in PANELS:
                    yield Static(id=name, classes="panel")
        yield Footer()

    def on_mount(self) -> None:
        self.title = f"vkemu step: {self.subject}"
        self.threads.border_title = "who goes next (enter, or its number)"
        self.story.border_title = "what happened"
        self.story.add_columns("step", "actor", "what")
        self.query_one("#changed", Static).border_title = "changed in this step"
        for name, (title, _) in PANELS.items():
            self.query_one(f"#{name}", Static).border_title = title
        self.threads.focus()
        self.show()

    @property
    def threads(self) -> OptionList:
        return self.query_one("#threads", OptionList)

    @property
    def story(self) -> DataTable[Any]:
        return self.query_one("#story", DataTable)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_take(event.option_index)

    def action_take(self, index: int) -> None:
        options = self.stepper.options()
        if index < len(options):
            self.stepper.take(options[index].tid)
            self.show()

    def action_undo(self, count: int) -> None:
        self.stepper.back(count)
        self.show()

    def action_stay(self) -> None:
        self.stepper.stay()
        self.show()

    def action_finish(self) -> None:
        self.stepper.finish()
        self.show()

    def action_restart(self) -> None:
        self.stepper.replay([])
        self.show()

    def action_save(self) -> None:
        """The token of where it stands, whatever has happened there."""
        word = self.token_of(self.stepper)
        try:
            self.save_to.write_text(word + "\n")
        except OSError as error:
            self.notify(f"{self.save_to}: {error.strerror}", severity="error")
            return
        self.notify(f"vkemu replay {word}", title=f"saved in {self.save_to}", timeout=10)

    def show(self) -> None:
        stepper = self.stepper
        self.sub_title = f"step {len(stepper.choices)}"
        self._show_threads()
        waiting = [f"{w.actor} waits to {w.effect} (now {w.state})" for w in stepper.waiting()]
        self.query_one("#waiting", Static).update(Text("\n".join(waiting[:6])))
        self._show_story()
        # What the set-up did would hide what it left.
        changes = stepper.changes if stepper.choices else []
        changed = Text()
        for thing, attribute, before, after in changes:
            changed.append(f"{thing} {attribute}: ", style="bold")
            changed.append(before or "none", style="red" if before else "dim")
            changed.append(" -> ")
            changed.append(f"{after or 'gone'}\n", style="green" if after else "red")
        self.query_one("#changed", Static).update(
            changed or Text("nothing" if stepper.choices else "nothing yet: below is the set-up")
        )
        touched = {thing for thing, *_ in changes}
        for name, (_, wanted) in PANELS.items():
            self.query_one(f"#{name}", Static).update(self._things(wanted, touched))

    def _show_threads(self) -> None:
        stepper, threads = self.stepper, self.threads
        threads.clear_options()
        if stepper.over:
            end = "the end: nothing is wrong" if stepper.error is None else str(stepper.error)
            threads.add_option(Choice(Text(end, style="" if stepper.error is None else "bold red")))
            return
        for n, option in enumerate(stepper.options(), 1):
            label = Text(f"{n} ", style="dim")
            label.append(option.actor, style="bold")
            label.append(f"  {option.effect}  ")
            label.append(option.where, style="dim")
            threads.add_option(Choice(label))
        threads.highlighted = 0

    def _show_story(self) -> None:
        story = self.story
        story.clear()
        story_rows = 500
        for step in self.stepper.steps[-story_rows:]:
            texts = [narrate(event) for event in step.events] or [step.effect]
            if step.number == 0:
                texts = [f"set-up, {len(step.events)} events"]
            for text in texts:
                story.add_row(str(step.number), step.actor, text)
        story.move_cursor(row=story.row_count - 1)

    def _things(self, wanted: Callable[[str], bool], touched: set[str]) -> Text:
        shown = Text()
        for thing, attributes in sorted(self.stepper.machine.state.items(), key=_natural):
            if wanted(thing):
                words = ", ".join(f"{a} {v}" if a != "maps" else v for a, v in attributes.items())
                style = "bold yellow" if thing in touched else ""
                shown.append(f"{thing}: {words}\n", style=style)
        return shown or Text("none", style="dim")


def _natural(item: tuple[str, object]) -> list[tuple[int, str]]:
    """`page 9` before `page 12`."""
    words = item[0].replace("@", " ").split()
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]
