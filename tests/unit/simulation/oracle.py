# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""What the rules promise, checked against the truth of a world.

The oracle knows who is dead, cut off or well, and when the backend works.
From that alone it says which verdicts would be wrong.
"""

from tests.unit.simulation import world as worlds
from tests.unit.simulation.world import HOLD, LIMIT, LONGEST, ME, RULE


class Wrong(AssertionError):
    """A verdict that the rules promise not to give."""


class Oracle:
    """Checks a world after every look.

    :param says: whether members say when they could not report
    :param rested: whether there is time between two outages for everybody
        to report; without it a member may be unlucky at each attempt, and
        only the bound for deaths holds
    """

    def __init__(self, script, members, step, rested=True, says=False):
        self.says = says
        self.script = script
        self.members = members
        self.step = step
        self.rested = rested
        # By how much the observer may be wrong in disfavour of others about
        # begin and end of an outage: it has to look, or to report, to learn
        # of them.
        self.lag = 2 * (LONGEST + step)
        # Members that are away and not found yet.
        self._awaited = {
            (number, span)
            for number, span in script.dead.items()
            if number != ME
        }
        self.found = 0

    def check(self, world, changes):
        """Take in a look.

        :raises Wrong: it brought a wrong verdict
        """
        for change in changes:
            number = world.number[change.host]
            if change.was is not None and change.now.state == "down":
                if change.was.state != "down":
                    self._down(world, number)
        for awaited in list(self._awaited):
            self._await(world, *awaited)

    # -- nobody is called dead who is not

    def _down(self, world, number):
        """Check that a member is down by its own fault."""
        now, last = world.now, world.last[number]
        outages = [
            o.span for o in self.script.outages if o.span.overlap(last, now)
        ]
        if not self.rested and outages:
            return
        if any(self._is_own_trouble(world, span) for span in outages):
            return
        own = sum(
            span.overlap(last, now)
            - sum(
                span.overlap(max(o.begin, last), min(o.end, now))
                for o in outages
            )
            for span in world.away(number)
        )
        # The attempts before and after it may have been due any time.
        enough = LIMIT - 2 * LONGEST - self.step - self.lag * len(outages)
        if own <= max(0.0, enough):
            raise Wrong(
                f"{number} down at {now}: last report at {last}, away by "
                f"its own fault for {own} s"
            )
        for span, cut in self.script.cuts:
            held = span.begin - LONGEST + LIMIT + HOLD - self.step
            if (
                number in cut
                and self._is_mass(cut)
                and now < min(span.end, held)
            ):
                raise Wrong(f"{number} down at {now}, not held")

    def _is_own_trouble(self, world, outage):
        """Whether a long outage looks like the observer's own trouble.

        That came before, and too few are left to bear it out.
        """
        few = self.members - len(world.downs) <= RULE.min_members
        long = outage.end - outage.begin > 2 * LIMIT - LONGEST
        return (
            few
            and long
            and any(
                s.begin < outage.end and s.end + LONGEST > outage.begin
                for s in world.away(ME)
            )
        )

    def _is_mass(self, cut):
        """Whether a cut has to be held: only where nothing else is wrong."""
        alone = not self.script.outages and not self.script.dead
        return (
            alone
            and len(self.script.cuts) == 1
            and self.members >= 4
            and len(cut) >= 0.55 * self.members
        )

    # -- the dead are found

    def _await(self, world, number, span):
        now = world.now
        if now >= span.end:
            # It is alive again: nobody need have noticed.
            self._awaited.discard((number, span))
            return
        if now < span.begin:
            return
        if number in world.downs:
            self.found += 1
            self._awaited.discard((number, span))
            return
        if not world.judge.failing and now > self._bound(span.begin):
            raise Wrong(f"{number}, dead since {span}, is up at {now}")

    def _bound(self, begin):
        """Return when a death has to be known at the latest."""
        spans = [o.span for o in self.script.outages]
        # While the observer is away itself it knows nothing. What those say
        # who are cut off may be taken for the truth, and is, for them.
        spans += [
            s for s, cut in self.script.cuts if ME in cut or self.says
        ]
        spans += [s for n, s in self.script.dead.items() if n == ME]
        # So much time with a backend that works, for the observer:
        need = LIMIT + self.step
        if any(s.end > begin - LONGEST for s in spans):
            need = 2 * LIMIT + self.step
        if self._many(begin):
            need += HOLD + LIMIT
        at = begin
        for s in sorted(spans):
            if s.end + self.step <= at:
                continue
            # It knows of a stall by looks: to the first that is answered.
            # Reports of its own tell of no more than the truth.
            healthy = max(0.0, s.begin - self.step - at)
            if healthy < LONGEST:
                # None of its own reports may have got through in between.
                healthy = 0.0
            if healthy >= need:
                break
            need -= healthy
            at = max(at, s.end + self.step)
        # Up to its own next report it may go on for all it knows.
        return max(at + need, at + LONGEST)

    def _many(self, begin):
        """Whether the verdict may be held, or another hold be under way."""
        near = LIMIT + HOLD + LIMIT
        fallen = {
            number
            for span, cut in self.script.cuts
            for number in cut
            if span.begin < begin + near and span.end > begin - near
        }
        fallen |= {
            number
            for number, span in self.script.dead.items()
            if span.begin < begin + near and span.end > begin - near
        }
        # Whoever was away before is not counted any more.
        return len(fallen) >= 0.3 * self.members or self.members < 8


def run(
    script,
    members,
    until,
    step,
    seed=0,
    rested=True,
    rule=worlds.RULE,
    **word,
):
    """Run a world to its end under the eyes of an oracle; return both.

    :param word: what members say: arguments of World
    """
    world = worlds.World(members, script, step, seed, rule, **word)
    oracle = Oracle(script, members, step, rested, world.says)
    world.run(until, oracle.check)
    return world, oracle
