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


"""A driver for nova_sg: members are files in a folder that hosts share.

It shows what a driver has to do, and is short: it has no time-out for a file
server that hangs, which a driver for use would need.
"""

import contextlib
import datetime
import json
import os
import pathlib
import time
import urllib.parse

from oslo_config import cfg

from nova_sg import exception
from nova_sg.backends import base
from nova_sg.conf import CONF
from nova_sg.liveness.model import Attributes, Observation, Refresh

OPTS = [cfg.StrOpt("path", help="The folder; all hosts see the same one.")]
CONF.register_opts(OPTS, group="folder")


def list_opts():
    """Return the options by section, for oslo-config-generator."""
    return [("folder", OPTS)]


class FolderDriver(base.Driver):
    name = "folder"
    characteristics = base.Characteristics(
        detects="a member whose process, host or network is gone",
        bound="service_down_time after its last report",
        blind="a file server that hangs",
    )

    def __init__(self):
        if not CONF.folder.path:
            raise exception.ConfigError(
                "[folder] path: the driver needs a folder that all hosts see"
            )
        self._folder = pathlib.Path(CONF.folder.path)

    # -- members of this process

    def report(self, membership):
        self._write(membership, left=False)

    def withdraw(self, membership):
        self._write(membership, left=True)

    def _write(self, membership, left):
        state = membership.state
        with self._errors():
            path = self._path(membership.group, membership.host)
            if "count" not in state:
                state["count"] = self._read(path).get("count", 0)
            state["count"] += not left
            values = {
                "count": state["count"],
                "binary": membership.binary,
                "left": left,
                "draining": membership.draining,
                "unwell": membership.unwell,
                "domain": membership.domain,
            }
            self._replace(path, json.dumps(values))

    # -- observing

    def observe(self, group):
        asked = time.monotonic()
        found = []
        with self._errors():
            # By the clock that stamps the members' files, whichever it is.
            now = self._replace(self._folder / ".clock", "").st_mtime
            for path in self._path(group).glob("*.member"):
                host = urllib.parse.unquote(path.stem)
                values = self._read(path)
                if not values:
                    continue
                written = path.stat().st_mtime
                count = values.pop("count")
                forced = path.with_suffix(".forced").exists()
                found.append(
                    Observation(
                        host,
                        report_number=count,
                        reported=asked - (now - written),
                        last_seen=datetime.datetime.fromtimestamp(
                            written, datetime.UTC
                        ),
                        attributes=Attributes(forced_down=forced, **values),
                    )
                )
        return Refresh(self.name, asked, found, exact=True)

    def groups(self):
        with self._errors():
            return [
                urllib.parse.unquote(path.name)
                for path in self._folder.glob("*")
                if path.is_dir()
            ]

    # -- commands of operators

    def force_down(self, group, host, forced):
        with self._errors():
            mark = self._member(group, host).with_suffix(".forced")
            if forced:
                self._replace(mark, "")
            else:
                mark.unlink(missing_ok=True)

    def forget(self, group, host):
        with self._errors():
            path = self._member(group, host)
            path.unlink()
            path.with_suffix(".forced").unlink(missing_ok=True)

    def check(self):
        ok = os.access(self._folder, os.W_OK)
        return [
            base.Finding(
                ok,
                str(self._folder),
                "can be written" if ok else "cannot be written",
                "" if ok else "Let [folder] path name a folder to write to",
            )
        ]

    def close(self):
        pass

    # -- files

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except OSError as error:
            raise exception.BackendError(
                f"the folder {self._folder}: {error.strerror}"
            ) from error

    def _path(self, group, host=None):
        # No name of a group or a host leads out of the folder.
        folder = self._folder / _quote(group)
        return folder if host is None else folder / f"{_quote(host)}.member"

    def _member(self, group, host):
        path = self._path(group, host)
        if not path.exists():
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )
        return path

    def _read(self, path):
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise exception.BackendError(f"{path}: {error}") from error

    def _replace(self, path, text):
        """Write a file that no reader sees half written; return its stat."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.write_text(text)
        new.replace(path)
        return path.stat()


def _quote(name):
    return urllib.parse.quote(name, safe="").replace(".", "%2E")
