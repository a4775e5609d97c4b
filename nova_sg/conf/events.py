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

"""[events]: what nova-sg watch does about what happens to members."""

from oslo_config import cfg

EVENTS_OPTS = [
    cfg.StrOpt(
        "exec",
        help="""
A command that is run for each event: a program and its arguments, no shell.
It gets the event as JSON on its standard input, and must end with status 0.
""",
    ),
    cfg.URIOpt(
        "webhook",
        schemes=["http", "https"],
        help="""
A URL that each event is posted to, as JSON. The answer must be 200 to 299.
""",
    ),
    cfg.StrOpt(
        "webhook_token",
        secret=True,
        help="""
What the webhook knows us by: sent as "Authorization: Bearer TOKEN".
""",
    ),
    cfg.BoolOpt(
        "notifications",
        default=False,
        help="""
Whether each event is sent to a message queue, in the shape of Nova's versioned
notifications. It takes pip install 'nova-sg[notifications]', and the
transport_url of [oslo_messaging_notifications] or [DEFAULT], which are
oslo.messaging's own, as all that it says of a broker.
""",
    ),
    cfg.ListOpt(
        "notification_topics",
        default=["versioned_notifications"],
        help="""
The topics that notifications are sent to, with the priority: by default to the
queue versioned_notifications.info, as Nova's own are.
""",
    ),
    cfg.ListOpt(
        "only",
        default=["up", "down", "held"],
        item_type=cfg.types.String(
            choices=[
                *("joined", "up", "down", "left", "held"),
                *("draining", "stopped"),
            ]
        ),
        help="""
The types of events that are acted upon.
""",
    ),
    cfg.FloatOpt(
        "down_for",
        default=0,
        min=0,
        help="""
Seconds that a member must have been down before its event is acted upon, and
then still be down by a fresh look. A member that comes back before has no
event of either.
""",
    ),
    cfg.FloatOpt(
        "time_limit",
        default=30,
        min=0.1,
        help="""
Seconds that a command may run, or a webhook or broker take to answer.
""",
    ),
    cfg.IntOpt(
        "parallel",
        default=4,
        min=1,
        max=1000,
        help="""
How many commands run, or posts or notifications are under way, at the same
time. Those of one member come one after the other, in the order of its events.
""",
    ),
    cfg.FloatOpt(
        "retry_for",
        default=3600,
        min=0,
        help="""
Seconds for which to try again what failed, first after a second, later after
a minute. Further events of that member wait meanwhile.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"events": EVENTS_OPTS}
