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

"""A member of stock Nova on a host. It joins, and reports until it is killed.

The order "prepare" instead makes Nova's table of services.
"""

import threading
import time

import journal


def main(stack, order):
    book = journal.Journal(order["folder"])
    service = stack.Stack(order["folder"], order["group"], order["hosts"])
    if order.get("prepares"):
        _make_table()
        book.tell("prepared")
        # It is ended once that has been read.
        threading.Event().wait()
    [host] = order["hosts"]
    while not _prepare(service, host):
        time.sleep(1.0)
    service.join(host)
    book.tell("joined")
    threading.Event().wait()


def _prepare(service, host):
    """Make its record, or find the one that it has; return whether it did."""
    from nova import exception, objects

    try:
        service.prepare([host])
    except (exception.ServiceBinaryExists, exception.ServiceTopicExists):
        get = objects.Service.get_by_host_and_topic
        reference = get(service._context, host, service._group)
        service._references[host] = reference
        return reference is not None
    except Exception:
        return False
    return True


def _make_table():
    import sqlalchemy
    from nova.db.main import models
    from oslo_config import cfg

    engine = sqlalchemy.create_engine(cfg.CONF.database.connection)
    models.Service.__table__.create(engine, checkfirst=True)
    engine.dispose()
