"""`source-dpor`: partial-order reduction with source sets, and sleep sets against repetition.

Abdulla, Aronis, Jonsson, Sagonas: Optimal Dynamic Partial Order Reduction, POPL 2014, Algorithm 1.
For every race one thread, not a whole sequence, is added where the first of the two was taken,
unless a thread that could come first is there already; so an execution may find, too late, that all
it can still do has been explored (`blocked`). Deviations: as for `dpor`; besides, a thread in the
sleep set counts as being there.
"""

from __future__ import annotations

from vkemu.exploration.reduction.reduction import Reduction


class SourceDpor(Reduction):
    name = "source-dpor"

    def reverse_races(self) -> None:
        trace = self.trace
        for first, second, tid, footprint, past, without in self.races:
            if second < self.kept:
                continue
            events = trace.left(trace.independent_of(first), without) & ((1 << second) - 1)
            if self.late:  # a guess: what it touches there is known if it was taken there
                taken = [touched for other, touched, _ in self.sleeps[first] if other == tid]
                footprint = taken[0] if taken else None
            if footprint is None:
                past = events
            else:
                for code in footprint:
                    past |= trace.rivals[code]
            initials = [tid] if not past & events else []
            rest = events
            while rest:
                event = rest & -rest
                rest ^= event
                position = event.bit_length() - 1
                if not (trace.clocks[position] ^ event) & events:
                    initials.append(trace.tids[position])
            tree = self.trees[first]
            known = {node[0] for node in tree} | {node[0] for node in self.sleeps[first]}
            if known.isdisjoint(initials):
                tree.append((initials[0], None, []))
