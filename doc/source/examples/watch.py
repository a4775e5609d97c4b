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

"""Follows a group and prints what happens to its members.

Usage: watch.py --config-file FILE
"""

import queue
import sys

from nova_sg import conf, servicegroup


def main() -> None:
    conf.CONF(sys.argv[1:], project="nova-sg")
    api = servicegroup.API()
    events: queue.Queue = queue.Queue()

    # Members that exist already make no event. Later changes do.
    watch = api.watch("compute", events.put)

    def show_next() -> None:
        event = events.get(timeout=30)
        print(event.host, event.type)

    api.join("node1", "compute")
    show_next()
    api.force_down("node1", "compute")
    show_next()
    api.force_down("node1", "compute", forced=False)
    show_next()
    api.leave("node1", "compute")
    show_next()
    api.forget("node1", "compute")
    show_next()

    watch.cancel()


if __name__ == "__main__":
    main()
