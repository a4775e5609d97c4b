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

"""Which members of a group are alive: the rules, and nothing else.

These modules are pure: no I/O, no clock, no thread, no lock, and no import
from the rest of nova_sg. Every moment is an argument, in seconds on the
observer's monotonic clock. Read them in this order:

model
    the values: observation, outage, verdict, member
history
    what a backend shows of one member, over all refreshes
deadline
    when a silence becomes too long
outages
    when a backend was at fault, and not its members
reported_outages
    outages that members report
backend
    what is known of one backend
domains
    which members fail together
mass_silence
    most of a group, or of a domain, falls silent at the same time
group
    what is known of a group, and the verdicts of its members
rules
    the rules for one member: the only place that makes a verdict
detector
    step(): a refresh in, verdicts out
explain
    a verdict as a sentence
"""
