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

The oracle knows which members are dead, cut off or well, and when the backend
works. From that alone, without the detector's rules, it derives which
verdicts would be wrong:

- *down* of a member that could not report only because of the backend, or
  together with most of its group or failure domain,
- *up* of a member that has been dead for longer than the bound, and
- another cause than the one that the last report of a member asks for.
"""

from tests.unit.simulation import world as worlds
from tests.unit.simulation.world import HOLD, LIMIT, LONGEST, ME, RULE


class Wrong(AssertionError):
    """A verdict that the rules promise not to give."""


class Oracle:
    """Checks a world after every refresh.

    :param step: seconds between two refreshes
    :param all_can_report: whether every member can report between any two
        outages; without it a member may miss each gap, and only the bound
        for deaths is checked
    :param report_outages: whether members report since and until when they
        could not report
    :ivar found: how many deaths had to be found, and were
    """

    def __init__(
        self, script, members, step, all_can_report=True, report_outages=False
    ):
        self.report_outages = report_outages
        self.script = script
        self.members = members
        self.step = step
        self.all_can_report = all_can_report
        # An outage may be so many seconds longer than the observer knows. It
        # learns of begin and end by its next refresh or report only.
        self.unnoticed = 2 * (LONGEST + step)
        # The deaths that the observer has to find and has not found yet.
        self._unfound = set(script.dead.items())
        self.found = 0

    def check(self, world, changes):
        """Check the changes of a refresh.

        :raises Wrong: one of them, or a state that stayed, is wrong
        """
        for change in changes:
            number = world.number[change.host]
            if change.was is not None and change.now.state == "down":
                if change.was.state != "down":
                    self._check_down(world, number)
        for death in list(self._unfound):
            self._check_found(world, *death)
        if not world.judge.failing:
            for number in {*self.script.draining, *self.script.unwell}:
                self._check_cause(world, number)

    # -- No living member is called down.

    def _check_down(self, world, number):
        """Check that a member has turned down by its own fault.

        :raises Wrong: the backend, or a mass silence, explains its silence
        """
        now, last = world.now, world.last_report[number]
        outages = [
            o.span for o in self.script.outages if o.span.overlap(last, now)
        ]
        if not self.all_can_report and outages:
            return
        if any(self._may_be_unexcused(world, span) for span in outages):
            return
        # The seconds of its silence in which it could not report, although
        # the backend took reports.
        own = sum(
            span.overlap(last, now)
            - sum(
                span.overlap(max(o.begin, last), min(o.end, now))
                for o in outages
            )
            for span in world.own_faults(number)
        )
        # Its own fault needs to explain less than LIMIT: the silence began
        # up to LONGEST before the fault and may outlast it by as much, and
        # the observer misses parts of each outage.
        enough = (
            LIMIT - 2 * LONGEST - self.step - self.unnoticed * len(outages)
        )
        if own <= max(0.0, enough):
            raise Wrong(
                f"{number} down at {now}: last report at {last}, unable to "
                f"report by its own fault for {own} s"
            )
        for span, cut in self.script.cuts:
            # The earliest end of the hold.
            held = span.begin - LONGEST + LIMIT + HOLD - self.step
            if (
                number in cut
                and (self._is_mass(cut) or self._is_mass_of(number, cut))
                and now < min(span.end, held)
            ):
                raise Wrong(f"{number} down at {now}, not held")

    def _may_be_unexcused(self, world, outage):
        """Whether the rules may take an outage for the observer's own fault.

        They may if the outage is long, the observer was cut off until
        shortly before it, and too few members are left to confirm that the
        backend is at fault.
        """
        few = self.members - len(world.called_down) <= RULE.min_members
        long = outage.end - outage.begin > 2 * LIMIT - LONGEST
        return (
            few
            and long
            and any(
                s.begin < outage.end and s.end + LONGEST > outage.begin
                for s in world.own_faults(ME)
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

    def _is_mass_of(self, number, cut):
        """Whether a cut has to be held in a member's failure domain.

        That is so whatever happens to single members of other domains, as
        long as they do not become most of the group.
        """
        domain = self._domain_of(number)
        others = {*self.script.dead}
        for _, other in self.script.cuts:
            if other is not cut:
                others |= other
        return (
            not self.script.outages
            and len(domain) >= RULE.min_members
            and len(cut & domain) >= RULE.fraction * len(domain)
            and not others & domain
            and len(others | cut) < 0.3 * self.members
        )

    def _domain_of(self, number):
        """Return the members of a member's failure domain."""
        domains = self.script.domains
        if number not in domains:
            return set()
        return {n for n, one in domains.items() if one == domains[number]}

    # -- A member that drains, or is unwell, is up, and says so.

    def _check_cause(self, world, number):
        """Check that a member is as its last report says, if it is up.

        :raises Wrong: it is not
        """
        verdict = world.judge.group.members[world.names[number]].verdict
        expected = world.reports(number)
        if verdict.state == "up" and verdict.cause not in ("held", expected):
            raise Wrong(f"{number} is {verdict} at {world.now}: {expected}")

    # -- The dead are found.

    def _check_found(self, world, number, span):
        """Check that a dead member is down, once the bound has passed.

        :raises Wrong: it is up
        """
        now = world.now
        if now >= span.end:
            # It is alive again. Its death was too short to have to be found.
            self._unfound.discard((number, span))
            return
        if now < span.begin:
            return
        if number in world.called_down:
            self.found += 1
            self._unfound.discard((number, span))
            return
        if not world.judge.failing and now > self._bound(number, span.begin):
            raise Wrong(f"{number}, dead since {span}, is up at {now}")

    def _bound(self, number, begin):
        """Return when a member's death has to be known at the latest.

        The observer needs a certain time in which the backend works for it.
        This adds up such time, from the death on, until it is enough.
        """
        # When the backend does not work for the observer: in outages, and
        # while the observer itself is cut off. Where members report outages,
        # a cut of others counts, too: what they report is true for them, and
        # the observer may trust it.
        spans = [o.span for o in self.script.outages]
        spans += [
            s
            for s, cut in self.script.cuts
            if ME in cut or self.report_outages
        ]
        # The working time, in seconds, after which the death must be known.
        need = LIMIT + self.step
        if any(s.end > begin - LONGEST for s in spans):
            # It may have died before it could report after an outage.
            need = 2 * LIMIT + self.step
        if self._may_be_held(number, begin):
            need += HOLD + LIMIT
        at = begin
        for s in sorted(spans):
            if s.end + self.step <= at:
                continue
            # To the observer an outage lasts from its last refresh before it
            # to its first one after it. Its own reports never tell of more
            # than the truth.
            healthy = max(0.0, s.begin - self.step - at)
            if healthy < LONGEST:
                # Perhaps none of its own reports got through in this gap, and
                # it takes two outages for one.
                healthy = 0.0
            if healthy >= need:
                break
            need -= healthy
            at = max(at, s.end + self.step)
        # It may assume that an outage goes on up to its own next report.
        return max(at + need, at + LONGEST)

    def _may_be_held(self, number, begin):
        """Whether a mass silence may delay the verdict on a death.

        One of the group, or one of the member's failure domain.
        """
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
        # The rule does not count members that were down before. So 30 % of
        # all members may be most of those that it counts.
        if len(fallen) >= 0.3 * self.members or self.members < 8:
            return True
        domain = self._domain_of(number)
        return len(domain) >= RULE.min_members and (
            len(fallen & domain) >= 0.3 * len(domain) or len(domain) < 8
        )


def run(
    script,
    members,
    until,
    step,
    seed=0,
    all_can_report=True,
    rule=worlds.RULE,
    **reported,
):
    """Run a world and check it after each refresh; return world and oracle.

    :param reported: what members report of outages: arguments of World
    :raises Wrong: a verdict was wrong
    """
    world = worlds.World(members, script, step, seed, rule, **reported)
    oracle = Oracle(
        script, members, step, all_can_report, world.report_outages
    )
    world.run(until, oracle.check)
    return world, oracle
