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


"""Saves Nova's Service objects, as stock Nova does, and many together.

Usage: python heartbeats.py URL OTHER_URL PID

The URLs are those of two empty databases, and PID is the server's. The results
are printed as JSON.
"""

import itertools
import json
import os
import signal
import sys
import threading
import time

# First of all: it decides on the concurrency mode.
import nova.cmd.manage  # isort: skip

import nova.conf
import sqlalchemy as sa
from nova import context, monkey_patch, objects
from nova.db.main import api as db_api
from nova.db.main import models
from oslo_utils import uuidutils

from nova_sg.nova import coalesce

COUNT = 7
VERSION = 40
BEFORE = "2020-01-01 00:00:00"
#: The changes that are saved.
CASES = {
    "one more": {"report_count": COUNT + 1},
    "many more": {"report_count": COUNT + 100},
    "no more": {"report_count": COUNT},
    "less": {"report_count": 1},
    "leaving": {"report_count": 0},
    "disabled": {"report_count": COUNT + 1, "disabled": True},
    "nothing": {},
    "deleted": {"report_count": COUNT + 1},
    "unknown": {"report_count": COUNT + 1},
}
#: What an operator has set meanwhile; the object gets it, too.
MEANWHILE = {"disabled": 1, "disabled_reason": "broken", "forced_down": 1}
PATIENCE = 60

STOCK = db_api.service_update
SERVICES = models.Service.__table__

notifications = []
hosts = (f"host{number}" for number in itertools.count())
statements = []


def main():
    url, other_url, pid = sys.argv[1:]
    conf = nova.conf.CONF
    conf([], project="nova", default_config_files=[])
    conf.set_override("connection", url, "database")
    conf.set_override("max_pool_size", 50, "database")
    db_api.configure(conf)
    objects.register_all()
    objects.Service.enable_min_version_cache()
    SERVICES.create(db_api.get_engine())
    make()
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    objects.Service._send_notification = (
        lambda service, action: notifications.append(action)
    )
    # A second call must change nothing.
    coalesce.install()
    coalesce.install()
    # How long callers wait for a frozen database: less than the usual 5 s.
    coalesce.PATIENCE = 1.0
    found = {
        "cases": {name: both(name) for name in CASES},
        "together": together(),
        "locked": locked(),
        "locks": locks(),
        "killed": killed(),
        "frozen": frozen(int(pid)),
        "cell": in_another_cell(other_url),
        "transaction": in_a_transaction(),
        "child": in_child(),
        # The last one: this process remembers it.
        "old": old(),
    }
    print(json.dumps(found))


def note(connection, cursor, statement, *more):
    statements.append(" ".join(statement.split()))


def make(ctxt=None, **values):
    """Make a record and return Nova's object of it."""
    host = next(hosts)
    record = {
        "host": host,
        "binary": "nova-compute",
        "topic": "compute",
        "uuid": uuidutils.generate_uuid(),
        "report_count": COUNT,
        "version": VERSION,
        "created_at": BEFORE,
        "updated_at": BEFORE,
        "last_seen_up": BEFORE,
        **values,
    }
    made = run(sa.insert(SERVICES).values(record), ctxt)
    return load(made.inserted_primary_key[0], ctxt)


def run(statement, ctxt=None):
    with db_api.get_engine(context=ctxt).begin() as connection:
        return connection.execute(statement)


def load(service_id, ctxt=None):
    ctxt = ctxt or context.get_admin_context()
    service = objects.Service.get_by_id(ctxt, service_id)
    service.obj_reset_changes()
    return service


def both(name):
    return {"stock": save(name, STOCK), "ours": save(name, None)}


def save(name, function):
    """Save a new object in one of the cases; return the effects."""
    coalescing = db_api.service_update
    service = make()
    if name == "unknown":
        run(sa.delete(SERVICES).where(SERVICES.c.id == service.id))
    else:
        deleted = service.id if name == "deleted" else 0
        run(
            sa.update(SERVICES)
            .where(SERVICES.c.id == service.id)
            .values(**MEANWHILE, deleted=deleted)
        )
    for field, value in CASES[name].items():
        setattr(service, field, value)
    statements.clear()
    notifications.clear()
    error = None
    try:
        db_api.service_update = function or coalescing
        service.save()
    except Exception as raised:
        error = repr(raised).replace(str(service.id), "ID")
    finally:
        db_api.service_update = coalescing
    said = list(statements)
    row = run(sa.select(SERVICES).where(SERVICES.c.id == service.id)).first()
    return {
        "error": error,
        "object": readable(
            {
                field: getattr(service, field)
                for field in service.obj_fields
                if service.obj_attr_is_set(field)
            }
        ),
        "changed": sorted(service.obj_what_changed()),
        "row": row and readable(row._mapping),
        "notifications": list(notifications),
        "tried": any("SKIP LOCKED" in text for text in said),
        "together": any("CASE id" in text for text in said),
    }


def readable(values):
    """Return the values that are the same for every record."""
    found = {}
    for name, value in values.items():
        if name in ("id", "uuid", "host"):
            continue
        if hasattr(value, "isoformat"):
            value = "before" if value.isoformat() < "2021" else "now"
        if name == "deleted" and value:
            value = True
        found[name] = value
    return found


class Caller(threading.Thread):
    """Saves an object on a thread."""

    def __init__(self, service, more=1):
        super().__init__(daemon=True)
        self._service = service
        self._more = more
        self.error = None
        self.start()

    def run(self):
        try:
            for _ in range(self._more):
                self._service.report_count += 1
                self._service.save()
        except Exception as error:
            self.error = repr(error)

    def end(self):
        """Wait for the end; return the error, if any."""
        wait_for(lambda: not self.is_alive())
        return self.error


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("too late")
        time.sleep(0.01)


def counts(services):
    """Return by how much the counts of all records have grown."""
    ids = [service.id for service in services]
    rows = run(
        sa.select(SERVICES.c.report_count).where(SERVICES.c.id.in_(ids))
    )
    return sorted({row.report_count - COUNT for row in rows})


def together():
    """Save many objects at the same time, some more than once."""
    services = [make() for _ in range(40)]
    statements.clear()
    errors = {caller.end() for caller in [Caller(s, 5) for s in services]}
    updates = [text for text in statements if text.startswith("UPDATE")]
    return {
        "errors": list(errors),
        "grown": counts(services),
        "objects": sorted({s.report_count - COUNT for s in services}),
        "heartbeats": 5 * len(services),
        "updates": len(updates),
        "together": sum("CASE id" in text for text in updates),
    }


def locked():
    """Lock one record: only the thread that saves it waits."""
    services = [make() for _ in range(10)]
    with db_api.get_engine().begin() as connection:
        connection.execute(
            sa.select(SERVICES)
            .where(SERVICES.c.id == services[0].id)
            .with_for_update()
        )
        callers = [Caller(service) for service in services]
        errors = {caller.end() for caller in callers[1:]}
        waiting = callers[0].is_alive()
    errors.add(callers[0].end())
    return {
        "errors": list(errors),
        "waiting": waiting,
        "grown": counts(services),
    }


def locks():
    """Count the rows that are locked between the two statements."""
    service = make()
    found = []
    update = coalesce._update

    def count(rows, now):
        with db_api.get_engine().connect() as connection:
            found.append(
                connection.exec_driver_sql(
                    "SELECT COALESCE(SUM(trx_rows_locked), 0) "
                    "FROM information_schema.innodb_trx"
                ).scalar()
            )
        return update(rows, now)

    coalesce._update = count
    try:
        service.report_count += 1
        service.save()
    finally:
        coalesce._update = update
    return {
        "locked": [int(rows) for rows in found],
        "grown": counts([service]),
    }


def killed():
    """Have all connections of the pool closed by the server."""
    services = [make() for _ in range(10)]
    engine = db_api.get_engine()
    with engine.connect() as connection:
        mine = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
        others = connection.exec_driver_sql(
            "SELECT id FROM information_schema.processlist "
            "WHERE db = DATABASE()"
        ).scalars()
        for other in others.all():
            if other != mine:
                connection.exec_driver_sql(f"KILL {other}")
    callers = [Caller(service) for service in services]
    errors = {caller.end() for caller in callers}
    return {"errors": list(errors), "grown": counts(services)}


def old():
    """Save where the server does not know SKIP LOCKED, as an old one."""

    def forget(connection, cursor, statement, parameters, *more):
        return statement.replace("SKIP LOCKED", "SKIP LOCKD"), parameters

    sa.event.listen(sa.Engine, "before_cursor_execute", forget, retval=True)
    services = [make() for _ in range(10)]
    errors, tried = set(), []
    for _ in range(2):
        statements.clear()
        callers = [Caller(service) for service in services]
        errors |= {caller.end() for caller in callers}
        tried.append(any("SKIP LOCK" in text for text in statements))
    sa.event.remove(sa.Engine, "before_cursor_execute", forget)
    return {"errors": list(errors), "tried": tried, "grown": counts(services)}


def frozen(pid):
    """Have the server hang for longer than a heartbeat waits for others."""
    services = [make() for _ in range(20)]
    os.kill(pid, signal.SIGSTOP)
    try:
        callers = [Caller(service) for service in services]
        time.sleep(3 * coalesce.PATIENCE)
        waiting = sum(caller.is_alive() for caller in callers)
    finally:
        os.kill(pid, signal.SIGCONT)
    errors = {caller.end() for caller in callers}
    return {
        "waiting": waiting,
        "errors": list(errors),
        "grown": counts(services),
    }


def in_another_cell(url):
    """Save a record of another database."""
    ctxt = context.get_admin_context()
    ctxt.db_connection = db_api.create_context_manager(url)
    SERVICES.create(db_api.get_engine(context=ctxt))
    service = make(ctxt)
    service.report_count += 1
    statements.clear()
    service.save()
    there = run(sa.select(SERVICES.c.report_count), ctxt).scalars().all()
    return {
        "there": there,
        "together": any("CASE id" in text for text in statements),
    }


def in_a_transaction():
    """Save in a transaction that is rolled back."""
    ctxt = context.get_admin_context()
    service = make(ctxt)
    statements.clear()
    try:
        with db_api.context_manager.writer.using(ctxt):
            service.report_count += 1
            service.save()
            raise LookupError
    except LookupError:
        pass
    return {
        "grown": counts([service]),
        "together": any("CASE id" in text for text in statements),
    }


def in_child():
    """Save in a process that forks from this one while others save."""
    service = make()
    busy = [Caller(make(), 20) for _ in range(10)]
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            hubs = sys.modules.get("eventlet.hubs")
            if hubs is not None and monkey_patch.is_patched():
                # oslo.service does so in its workers.
                hubs.use_hub()
            db_api.get_engine().dispose(close=False)
            service.report_count += 1
            service.save()
            status = 0
        finally:
            os._exit(status)
    errors = {caller.end() for caller in busy}
    _, status = os.waitpid(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "errors": list(errors),
        "grown": counts([service]),
    }


if __name__ == "__main__":
    main()
