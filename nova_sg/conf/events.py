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

"""[events]: how nova-sg watch acts upon events."""

from oslo_config import cfg

EVENTS_OPTS = [
    cfg.StrOpt(
        "exec",
        help="""
A command that is run for each event: a program and its arguments, without a
shell. It gets the event as JSON on its standard input, and has to end with
status 0. By default no command is run.
""",
    ),
    cfg.URIOpt(
        "webhook",
        schemes=["http", "https"],
        help="""
A URL to which each event is posted as JSON. The answer has to have a status
from 200 to 299. By default nothing is posted.
""",
    ),
    cfg.StrOpt(
        "webhook_token",
        secret=True,
        help="""
A token by which the webhook recognizes nova_sg, sent as "Authorization:
Bearer TOKEN". Set it if the webhook demands one.
""",
    ),
    cfg.BoolOpt(
        "notifications",
        default=False,
        help="""
Whether each event is sent to a message queue, in the form of Nova's
versioned notifications.

The broker is set by oslo.messaging's own options: transport_url in
[oslo_messaging_notifications] or [DEFAULT], and others. Needs: pip install
'nova-sg[notifications]'.
""",
    ),
    cfg.ListOpt(
        "notification_topics",
        default=["versioned_notifications"],
        help="""
The topics that notifications are sent to; the name of the queue is the
topic with the priority. The default is the queue of Nova's own
notifications, versioned_notifications.info. Add a topic for consumers that
should not share that queue.
""",
    ),
    cfg.ListOpt(
        "only",
        default=["up", "down", "held"],
        item_type=cfg.types.String(
            choices=[
                *("joined", "up", "down", "left", "held"),
                *("draining", "unwell", "stopped"),
            ]
        ),
        help="""
The types of events to act upon. The default leaves out members that join,
drain, stop or leave, which is done on purpose, and those that are unwell,
which are alive.
""",
    ),
    cfg.FloatOpt(
        "down_for",
        default=0,
        min=0,
        help="""
Seconds for which a member must have been down before its event is acted
upon. A refresh then has to confirm that it is still down. If it comes back
earlier, neither its down event nor its up event is acted upon.

By default an event is acted upon at once. Set it to the time that a service
or a host takes to restart where the action must not come too early.
""",
    ),
    cfg.FloatOpt(
        "time_limit",
        default=30,
        min=0.1,
        help="""
Seconds after which a command is killed, or a webhook or a broker that has
not answered has failed. The default is enough for a message. Raise it for a
command that takes longer, such as one that powers off a host.
""",
    ),
    cfg.IntOpt(
        "parallel",
        default=4,
        min=1,
        max=1000,
        help="""
How many commands run, or posts or notifications are under way, at the same
time; of notifications at most 16. The events of one member are handled one
after the other, in their order.

Set it to 1 for a command that must not run twice at once. Raise it where a
slow webhook falls behind.
""",
    ),
    cfg.FloatOpt(
        "retry_for",
        default=3600,
        min=0,
        help="""
Seconds for which an action that failed is tried again: first after a
second, then after longer pauses of up to a minute. Later events of the same
member wait meanwhile; those of other members do not.

The default, an hour, is enough for the restart of a webhook or a broker.
Raise it for longer outages; lower it where old events are worthless.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"events": EVENTS_OPTS}
