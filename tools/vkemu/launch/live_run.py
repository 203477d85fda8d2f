"""`vkemu run --live`: a scenario on an event loop.

The live run notes only who took each step. The same schedule is then run again under control with
the log on, so a live run has a run folder and a token like any other, and every live run checks
that both executors do the same: if they did not, the replay would diverge.
"""

from __future__ import annotations

import sys
from array import array
from typing import TextIO

from vkemu.executors.backend import on_backend
from vkemu.executors.controlled import StepBound
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import FAILURES
from vkemu.launch.scenario import Scenario
from vkemu.record.live_log import LiveLog, Writer, to_stream
from vkemu.record.log import renderer_for
from vkemu.verdict import Interrupted


def live_schedule(
    scenario: Scenario, backend: str, seed: int, shown: TextIO | None
) -> tuple[array[int], bool]:
    """Run it, its events going to `shown`: the tid that took each step, up to whatever end, and
    whether nothing was wrong, so that its replay need not look at the books again on its way."""
    live = Live(max_steps=scenario.max_steps, record=True, seed=seed)
    assert live.schedule is not None
    log = None
    clean = True
    if shown is not None:
        run = f"{scenario.name}/{scenario.policy}/{seed}"
        log = LiveLog(Writer(to_stream(shown)), run, live.schedule, renderer=renderer_for(shown))
    try:
        assemble(scenario, log, live)
        on_backend(backend, live.run)
    except KeyboardInterrupt:
        at = f"{scenario.name}, seed {seed} is at step {len(live.schedule)}"
        raise Interrupted(at) from None
    except StepBound:
        pass
    except FAILURES:
        clean = False  # the record says it, with the events that led to it
    finally:
        live.close()
        if log is not None and (missing := log.close()):
            print(missing, file=sys.stderr)
    return live.schedule, clean
