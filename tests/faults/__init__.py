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

"""Real servers and real processes on a bad day: what do observers answer?

catalogue       the faults: what is done, and what must hold. Begin here
contenders      who goes through them: nova_sg's drivers, and stock Nova's
backends        the servers of one fault, and the ways to them
stage           one fault's servers, members and observers
truth           who was alive when; how wrong the answers were
runner          plays faults side by side
table           the figures, for people
programs/       the processes: members, and observers that record answers

``python -m tests.faults --help`` runs them and prints the table.
"""
