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

"""[monitor]: what nova-sg-monitor, and an agent, show to browsers."""

from oslo_config import cfg

MONITOR_OPTS = [
    cfg.StrOpt(
        "listen",
        default="127.0.0.1",
        help="""
The address that nova-sg-monitor, and nova-sg-agent where agent_port is set,
listen on. If other hosts can reach it, set a token and a certificate, too.
""",
    ),
    cfg.PortOpt(
        "port",
        default=8890,
        min=1,
        help="""
The port that nova-sg-monitor listens on.
""",
    ),
    cfg.PortOpt(
        "agent_port",
        min=1,
        help="""
The port at which nova-sg-agent shows its own metrics, at /metrics. The agent
then refreshes its group, too. Without it the agent listens nowhere.
""",
    ),
    cfg.StrOpt(
        "token",
        secret=True,
        help="""
The token that a client has to send, as "Authorization: Bearer TOKEN";
the status page asks for it. Without a token, every client that can connect can
read everything. /healthz and /readyz never need it.
""",
    ),
    cfg.StrOpt(
        "cert_file",
        help="""
The file of the certificate for TLS, with those of its authorities, PEM. It
is read again at SIGHUP. Without it there is no TLS.
""",
    ),
    cfg.StrOpt(
        "key_file",
        help="""
The file of the certificate's key, PEM, without a password. It is not needed
if cert_file has the key.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"monitor": MONITOR_OPTS}
