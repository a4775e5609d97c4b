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

"""Asks inside Nova, as nova-api does, and writes down every answer.

It asks by records that it has just read.
"""

import answers
import controller
import journal


def main(stack, order):
    api = stack.Stack(order["folder"], order["group"], order["hosts"]).api
    asking = controller.Records(order["group"], api)
    asking.book = journal.Journal(order["folder"])
    answers.write(order, lambda: asking.ask(order["hosts"]))
