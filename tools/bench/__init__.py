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

"""The benchmark: what the drivers cost, beside their peers.

Run as `tools/bench.sh`, or with any Python as `python tools/bench`. The
servers are those of tests.fixtures; each contender runs in a process of its
own, as two of them may not share one: nova and nova_sg have one global
configuration, and a process is green or it is not.
"""
