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


"""The verdicts in words, for operators: what was seen when, and what follows.

Every sentence says which rule it was; the documentation lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nova_sg.servicegroup import facts

if TYPE_CHECKING:
    from nova_sg.servicegroup import detector


def explain(
    judge: detector.Detector, host: str, verdict: facts.Verdict, now: float
) -> str:
    """Return the verdict over host in a sentence.

    :param verdict: what judge.judge() said of host at that moment
    """
    if verdict is facts.UNAVAILABLE:
        if judge.last_look is None:
            return "the backend has never answered"
        return (
            f"the backend has not answered for {now - judge.last_look:.1f} s, "
            f"longer than {judge.service_down_time:g} s"
        )
    if verdict is facts.NOT_A_MEMBER:
        return "not a member of the group"
    if verdict is facts.FORCED_DOWN:
        return "forced down by an operator"
    if verdict is facts.LEFT:
        return "left the group"
    if verdict is facts.CRASHED:
        return "its process ended without leaving the group"
    return (
        _silence(judge, host, verdict, now)
        + _held(judge, verdict)
        + _failing(judge, now)
    )


def _silence(
    judge: detector.Detector, host: str, verdict: facts.Verdict, now: float
) -> str:
    known = judge.known(host)
    if verdict is facts.LOST or (verdict is facts.HELD and known.fact.lost):
        return "its session with the backend ended"
    if verdict in (facts.REGISTERED, facts.NEVER_REPORTED):
        since = known.fact.registered
        if since is None:
            return "never reported"
        text = f"registered {now - since:.1f} s ago, no report yet"
    else:
        since = known.last_report
        text = f"last report {max(0.0, now - since):.1f} s ago"
    how = judge.silence_of(since)
    if verdict is facts.VANISHED:
        return (
            f"{text}; the backend has lost its later reports, the next one "
            f"is due {max(0.0, known.vanished + judge.due() - now):.1f} s "
            "from now at the latest"
        )
    if verdict is facts.SILENT and judge.testimony.is_too_late(known):
        text += f", allowed are {judge.service_down_time:g} s"
        if how.healthy <= how.allowed:
            text += "; was down before others said that they could not report"
    elif how.excused > 0:
        text += (
            f", {how.excused:.1f} s of them without the backend"
            f"{_said(judge, since)}; silent for "
            f"{max(0.0, how.healthy):.1f} s with it, allowed are "
            f"{how.allowed:.4g} s"
        )
    elif how.healthy > how.allowed:
        text += f", allowed are {judge.service_down_time:g} s"
    away = judge.testimony.of(host)
    if away is not None:
        text += (
            f"; could not report for {away[1] - away[0]:.1f} s until "
            f"{max(0.0, now - away[1]):.1f} s ago, it says"
        )
    return text


def _said(judge: detector.Detector, since: float) -> str:
    """Say whose word it is that the backend was away."""
    for agreed in judge.testimony.agreed:
        if agreed.end > since:
            return (
                f" (so say {agreed.witnesses} of {agreed.members} members "
                "that report again)"
            )
    return ""


def _held(judge: detector.Detector, verdict: facts.Verdict) -> str:
    hold = judge.hold
    if verdict is not facts.HELD or hold is None:
        return ""
    for_ = max(0.0, judge.last_look - hold.since)
    return (
        f"; held as up for {for_:.1f} s so far, and for "
        f"{max(0.0, judge.mass.hold - for_):.1f} s more at most: "
        f"{hold.silent} of {hold.members} members fell silent within "
        f"{judge.service_down_time:g} s"
    )


def _failing(judge: detector.Detector, now: float) -> str:
    if not judge.failing:
        return ""
    return (
        f"; the backend has not answered for {now - judge.last_look:.1f} s, "
        "the last verdict stands"
    )
