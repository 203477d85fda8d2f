"""The timers of an asyncio loop: each is a thread, whose one step is that it fires."""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import Thread

from vkemu.exploration.reduction.footprint import Footprint
from vkemu.worlds.calls import called
from vkemu.worlds.noting import LOG, touch
from vkemu.worlds.world import World


class Timers(World):
    """The part of an asyncio world that is about time."""

    loop: Any
    ending: bool

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.now = 0.0
        self.fired: list[Any] = []

    def timer(self, handle: Any) -> None:
        touch(self.loop, "now", write=False)
        touch(self.loop, "ending", write=False)  # a later one does not fire
        owner = self.acting
        self.overtaken(handle._when)
        thread = self.born("")
        thread.name = f"timer {thread.path[-1]} of {owner.name if owner else 'nobody'}"
        LOG.name(handle)
        self.timers[handle] = thread
        self.registered[handle] = 1 << self.at if self.at >= 0 else 0

    def overtaken(self, when: float) -> None:
        """An earlier timer than all there are: the first of those could have fired before."""
        first = min((handle._when for handle in self.timers), default=when)
        if self.time == "any" and when < first and self.at >= 0:
            for handle, thread in self.timers.items():
                if handle._when == first:
                    past = self.past_of(handle)
                    self.might.append((self.at, thread.tid, self.codes_of(handle), past))

    def lapse(self, handle: Any) -> None:
        """A timer is cancelled. It could have fired before."""
        touch(self.loop, "now", write=False)
        touch(handle, "fired", write=True)
        thread = self.timers.get(handle)
        if thread is None:
            return
        if self.at >= 0:
            earlier = {other for other in self.timers if other._when < handle._when}
            strikes = self.time == "any" or handle._when <= self.now
            if strikes and self.tracking:
                might = self.at, thread.tid, self.codes_of(handle), self.past_of(handle)
                self.could_have_passed(might, earlier)
            self.could_come_earlier(handle, thread.tid)
            self.is_gone(handle, handle._when)
        del self.timers[handle]
        self.over(thread)

    def codes_of(self, handle: Any) -> Footprint:
        """What a timer touches when it fires, whatever its callback does."""
        number = self.objects.number_of
        now = 2 * number((LOG.name(self.loop), "now")) + (handle._when > self.now)
        return tuple(sorted([now, 2 * number((LOG.name(handle), "fired")) + 1]))

    def past_of(self, handle: Any, *, without: int = -1) -> int:
        must = self.registered[handle]
        for when, events, setting in self.gone:
            if when < handle._when and setting != without:
                must |= events
        return must

    def could_come_earlier(self, handle: Any, tid: int) -> None:
        """What set an earlier timer could have come after this one."""
        if self.time == "any" and self.tracking:
            live = [(other._when, 0, self.registered[other]) for other in self.timers]
            for when, _, setting in [*self.gone, *live]:
                if when < handle._when and setting:
                    past = self.past_of(handle, without=setting)
                    first = setting.bit_length() - 1
                    self.might.append((first, tid, self.codes_of(handle), past))

    def pass_time(self, thread: Thread) -> int:
        """A timer fires. The events that come before it."""
        here = self.at
        must = 0
        handle = next(handle for handle, timer in self.timers.items() if timer is thread)
        passes = handle._when > self.now
        if passes and self.time != "any":
            must = (1 << here) - 1
            self.barrier = 1 << here
            for other, timer in self.timers.items():  # which may as well be the first
                if other is not handle and other._when == handle._when:
                    self.might.append((here, timer.tid, self.codes_of(other), must))
        del self.timers[handle]
        must |= self.past_of(handle)
        self.could_come_earlier(handle, thread.tid)  # when it was not that late
        touch(self.loop, "now", write=passes)
        touch(handle, "fired", write=True)
        self.fired.append(handle)
        self.now = max(self.now, handle._when)
        self.is_gone(handle, handle._when)
        self.over(thread)
        if not handle._cancelled:
            called(handle._callback, *handle._args)
            handle._run()
        return must
