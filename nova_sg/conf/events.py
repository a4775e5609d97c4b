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
[oslo_messaging_notifications] or [DEFAULT], and others. Needs nova-sg's
extra "notifications".
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
        default=["up", "down", "held", "suspended"],
        item_type=cfg.types.String(
            choices=[
                *("joined", "up", "down", "left", "held"),
                *("draining", "unwell", "stopped", "suspended"),
            ]
        ),
        help="""
The types of events to act upon. The default leaves out members that join,
drain, stop or leave, which is done on purpose, and those that are unwell,
which are alive. "suspended" is about the group, and has no host: a limit is
exceeded, such as max_down.
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
    cfg.StrOpt(
        "max_down",
        help="""
How many members of the group may be down: a number (3), or a per cent (10%) of
the members, of which one at least. If more are down, nothing is done upon any
down event, and an event of the type "suspended" says so. Members that were
forced down or left on purpose are not counted on either side.

By default there is no limit. Set it wherever hosts are powered off or
evacuated: so many that die at once share a cause, such as a switch, and
evacuating them all makes it worse.
""",
    ),
    cfg.StrOpt(
        "max_down_per_domain",
        help="""
The same for the members of one failure domain: nothing is done upon its
members if more of them are down.

By default there is no limit. Set it to less than the smallest domain has, such
as 2, so that nothing is done when a whole rack is gone.
""",
    ),
    cfg.FloatOpt(
        "gather_for",
        min=0,
        help="""
Seconds for which a down event waits for those of other members, before the
members that are down are counted. It applies if max_down or
max_down_per_domain is set, and runs at the same time as down_for.

The default is 1.25 times report_interval and twice [servicegroup]
view_refresh_interval: 16.5 seconds. Members that die in the same moment are
found within that time, as their last reports were sent at different times.
Raise it if hosts die one after the other, as by heat.
""",
    ),
    cfg.IntOpt(
        "max_per_hour",
        min=0,
        help="""
How many down events are acted upon within any hour. Further ones wait, for
retry_for at most, and an event of the type "suspended" says so. Attempts for
one event count once, and so do several handlers.

By default there is no limit. Set it to the number of hosts whose instances the
rest of the cloud has room for. The process that acts keeps the count: it
begins anew when nova-sg watch is started again, or another one takes over.
""",
    ),
    cfg.BoolOpt(
        "skip_disabled",
        default=False,
        help="""
Whether nothing is done upon the down event of a member that an operator has
disabled (openstack compute service set --disable). Such members are not
counted for max_down and max_down_per_domain either.

Set it to true if hosts under maintenance are disabled. Only the services table
shows that a member is disabled: use the db driver.
""",
    ),
    cfg.BoolOpt(
        "lock",
        default=False,
        help="""
Whether of several nova-sg watch processes for a group only one acts: the one
that holds the group's lock in the primary driver's backend. The others print
events, and one of them takes over when it ends or dies.

Set it to true if nova-sg watch runs on several hosts. All of them need the
same options in this section.
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

It is also the time for which an event waits while actions are suspended by
max_down and the like, paused by nova-sg pause, or left to another process.

The default, an hour, is enough for the restart of a webhook or a broker.
Raise it for longer outages; lower it where old events are worthless.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"events": EVENTS_OPTS}
