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

"""The benchmark: the costs of the drivers, beside their peers.

Run as `tools/bench.sh`, or with any Python as `python tools/bench`. The
servers are those of tests.fixtures. Each contender runs in a process of its
own, because two of them cannot share one: nova and nova_sg each have one
global configuration, and a process is either green or not.
"""
