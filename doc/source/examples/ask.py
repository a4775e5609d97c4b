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

"""Joins two members, asks about them, and lets one leave.

Usage: ask.py --config-file FILE
"""

import sys

from nova_sg import conf, exception, servicegroup


def main() -> None:
    conf.CONF(sys.argv[1:], project="nova-sg")
    api = servicegroup.API()

    # Report now, and every report_interval seconds from then on.
    api.join("node1", "compute")
    api.join("node2", "compute")

    # Nova passes its own Service objects; a dict is enough.
    node1 = {"host": "node1", "topic": "compute"}
    print("node1 is up:", api.service_is_up(node1))
    print("all that are up:", api.get_all("compute"))

    # node2 is down from now on. Its last report stays known.
    api.leave("node2", "compute")
    for member in api.members("compute"):
        print(member.host, "is", member.state)
        print("  binary:", member.binary)
        print("  last seen:", member.last_seen is not None)

    try:
        api.member("compute", "node3")
    except exception.MemberNotFound as error:
        print(error)

    api.leave("node1", "compute")
    print("all that are up:", api.get_all("compute"))


if __name__ == "__main__":
    main()
