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

Pure: no I/O, no clock, no thread, no lock, and no import from the rest of
nova_sg. Every moment is in seconds on the observer's monotonic clock and
comes in as an argument. Read in this order:

model
    the values: observation, outage, verdict, member
seen
    what a backend says of one member, over all refreshes
deadline
    when a silence becomes too long
outages
    when a backend, and not its members, was at fault
reported_outages
    what members themselves say of that
backend
    what is known of one backend
mass_silence
    most of a group falls silent at once
group
    a group as it is known, and what it answers
rules
    the rules for one member: the only place that makes a verdict
detector
    step(): a refresh in, verdicts out
explain
    a verdict as a sentence
"""
