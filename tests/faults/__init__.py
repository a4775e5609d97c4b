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

"""Faults of real servers and real processes: what do observers answer?

In the order in which to read them:

catalogue       the faults: what is done, and what must hold
contenders      what goes through the faults: nova_sg's drivers and stock
                Nova's
backends        the servers of one fault, and the proxies in front of them
stage           one fault's servers, members and observers
truth           which members were alive when, and how wrong the answers were
runner          plays faults side by side
table           prints the figures
processes       starts the processes below and sends them orders
programs/       the processes: members, and observers that record answers
load            what many members at once cost the servers
hostile         what other programs may write where members report

``python -m tests.faults --help`` runs them and prints the table.
"""
