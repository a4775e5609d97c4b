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

"""nova-sg-monitor: a status page, an API to read, and metrics.

overview      what is shown: every group, its members, what happened
event_streams the clients that watch, each with a queue of its own
handlers      the response to each path
application   requests and responses: WSGI, access, headers
server        connections: cheroot, TLS, threads
service       all of this as a service; and an agent's own metrics

It reads only: nothing here changes a member.
"""
