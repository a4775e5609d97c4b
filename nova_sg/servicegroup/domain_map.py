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

"""The file that tells the failure domains of members: failure_domain_map."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg import exception
from nova_sg import trouble as trouble_log
from nova_sg.conf import CONF
from nova_sg.liveness.domains import NO_DOMAINS, Domains

LOG = logging.getLogger(__name__)

OPTION = "[servicegroup] failure_domain_map"

# What [servicegroup] failure_domain may be, too.
_DOMAIN = re.compile(r"[!-~][ -~]{0,63}")


class _File(NamedTuple):
    """The file as it was read last."""

    name: str
    #: What changes when the file does; None: it could not be read.
    version: tuple[int, ...] | None
    domains: Domains


class DomainMap:
    """The map, read again when the file has changed."""

    def __init__(self) -> None:
        self._file = _File("", None, NO_DOMAINS)
        self._log = trouble_log.TroubleLog()

    def check(self) -> None:
        """Read the map, if this process or its parent has not read it yet.

        :raises ConfigError: the file is missing, or a line is wrong
        """
        name = CONF.servicegroup.failure_domain_map or ""
        if name == self._file.name:
            # It is in use. What is wrong with it now is logged.
            return
        try:
            self._file = _read(name)
        except OSError as error:
            raise exception.ConfigError(
                f"{OPTION}: {name}: {error.strerror}. Correct its name, or "
                "its owner or mode"
            ) from None

    def current(self) -> Domains:
        """Return the map as it is now; called for each refresh.

        If the file cannot be read or a line is wrong, this is logged once,
        and the map stays as it was.
        """
        name = CONF.servicegroup.failure_domain_map or ""
        known = self._file
        if not name:
            return NO_DOMAINS
        try:
            version = _version(name)
            if (name, version) == (known.name, known.version):
                return known.domains
            self._file = _read(name)
        except (OSError, exception.ConfigError) as error:
            if self._log.begins():
                self._tell(name, error)
        else:
            if self._log.ends():
                LOG.info("Read the failure domains from %s again", name)
        return self._file.domains

    @staticmethod
    def _tell(name: str, error: Exception) -> None:
        why = str(error)
        if isinstance(error, OSError):
            why = f"{OPTION}: {name}: {error.strerror}"
        LOG.error(
            "Cannot read the failure domains: %s. The map that was read last "
            "stays in use, and the file is tried again at each refresh",
            why,
        )


def _version(name: str) -> tuple[int, ...]:
    found = os.stat(name)
    if not stat.S_ISREG(found.st_mode):
        # To read a pipe would never end.
        raise exception.ConfigError(
            f"{OPTION}: {name}: this is not a regular file"
        )
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(name: str) -> _File:
    """Read a map.

    :raises OSError: the file cannot be read
    :raises ConfigError: a line is wrong
    """
    if not name:
        return _File("", None, NO_DOMAINS)
    # Before it is read: a change meanwhile is noticed at the next refresh.
    version = _version(name)
    with open(name, encoding="utf-8", errors="replace") as file:
        lines = list(parse(file, name))
    return _File(name, version, Domains(lines))


def parse(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """Yield the host or pattern, and the domain, of each line.

    :param name: the file's name, for errors
    :raises ConfigError: a line is wrong
    """
    for number, line in enumerate(lines, 1):
        words = line.split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        domain = words[1].strip() if len(words) > 1 else ""
        if not _DOMAIN.fullmatch(domain):
            why = "there is no domain after the host"
            if domain:
                why = "a domain has at most 64 characters, all of them ASCII"
            raise exception.ConfigError(
                f"{OPTION}: {name}, line {number}: {why}. Write HOST DOMAIN, "
                "PATTERN DOMAIN, or # and a comment"
            )
        yield words[0], domain


_map = DomainMap()


def check() -> None:
    """Read the map, if this process or its parent has not read it yet.

    :raises ConfigError: the file is missing, or a line is wrong
    """
    _map.check()


def current() -> Domains:
    """Return the map of this process as it is now."""
    return _map.current()
