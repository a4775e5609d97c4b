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

"""Sections and options in nova_sg's own files that no program knows.

oslo.config ignores them, so an option whose name is misspelled has no effect.
Files with Nova's options are not checked: these options are Nova's matter.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata

from oslo_config import cfg

from nova_sg.conf import opts, servicegroup

#: The names of known options, by section.
Known = dict[str, set[str]]
#: A file's options by section.
Sections = dict[str, dict[str, list[str]]]

# Sections by which a file is recognized as one that Nova reads, too.
_NOVAS = {
    "api",
    "api_database",
    "conductor",
    "filter_scheduler",
    "glance",
    "keystone_authtoken",
    "libvirt",
    "neutron",
    "placement",
    "scheduler",
    "vnc",
}
_OWN_NAME = re.compile(r"nova[-_]sg")
# How similar a name has to be to be suggested, from 0 to 1.
_SIMILAR = 0.75
# How many names are listed.
_MOST = 10
# Libraries whose options may stand in nova_sg's files, by their entry points.
_LIBRARIES = ("oslo.log", "oslo.db")
# Those of oslo.config, oslo.service and oslo.messaging in [DEFAULT]. Asking
# these libraries would load plugins, and eventlet. The sections of
# oslo.messaging are not checked.
_MESSAGING = "oslo_messaging_"
_OTHERS = {
    "backdoor_port",
    "backdoor_socket",
    "config_dir",
    "config_file",
    "config_source",
    "control_exchange",
    "executor_thread_pool_size",
    "graceful_shutdown_timeout",
    "log_options",
    "rpc_ping_enabled",
    "rpc_response_timeout",
    "run_external_periodic_tasks",
    "transport_url",
}


def find(files: Iterable[str]) -> str:
    """Return what is unknown in the files that are nova_sg's own.

    :param files: the configuration files of this process; they can be read
    :returns: a clause for operators; empty: everything is known
    """
    texts = []
    for path, sections in _own(files):
        names = list(_unknown(sections))
        if len(names) > _MOST:
            names[_MOST:] = [f"{len(names) - _MOST} more"]
        if names:
            texts.append(f"{path}: {', '.join(names)}")
    return "; ".join(texts)


def _own(files: Iterable[str]) -> Iterator[tuple[str, Sections]]:
    """Yield those files that no other program reads, with their options."""
    read, others = [], False
    for path in files:
        sections = _read(path)
        if _is_novas(path) or _NOVAS & sections.keys():
            others = True
        else:
            read.append((path, sections))
    for path, sections in read:
        # A file without a name of its own goes with the files beside it.
        if not others or _OWN_NAME.match(os.path.basename(path)):
            yield path, sections


def _is_novas(path: str) -> bool:
    """Whether a file is Nova's by its name, or by that of its folder."""
    folder, name = os.path.split(os.path.abspath(path))
    if _OWN_NAME.match(name):
        return False
    return any(
        one.startswith("nova") and not _OWN_NAME.match(one)
        for one in (name, os.path.basename(folder))
    )


def _read(path: str) -> Sections:
    sections: Sections = {}
    cfg.ConfigParser(path, sections).parse()
    return sections


def _unknown(sections: Sections) -> Iterator[str]:
    """Yield what is unknown, with what was probably meant."""
    known: Known = {"DEFAULT": set(_OTHERS)}
    _add(known, opts.list_opts())
    used = _used(sections)
    found = list(_not_in(known, sections, used))
    for more in _library_options():
        if not found:
            return
        _add(known, more)
        found = list(_not_in(known, sections, used))
    for section, option in found:
        if option is None:
            yield f"section [{section}]{_similar(section, known, '[{}]')}"
        else:
            yield f"option [{section}] {option}" + _meant(
                section, option, known
            )


def _not_in(
    known: Known, sections: Sections, used: Collection[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield (section, option); no option: the section is unknown."""
    for section, options in sections.items():
        names = known.get(_normal(section))
        if _normal(section).startswith(_MESSAGING):
            continue
        if names is None:
            yield section, None
            continue
        for option in options:
            if option not in names and option not in used:
                yield section, option


def _normal(section: str) -> str:
    """Return a section's name as oslo.config compares it."""
    return section if section == "DEFAULT" else section.lower()


def _used(sections: Sections) -> set[str]:
    """Return the names to which values refer by a dollar sign."""
    return {
        name
        for options in sections.values()
        for values in options.values()
        for value in values
        for name in re.findall(r"\$\{?(?:\w+\.)?(\w+)", value)
    }


def _add(
    known: Known, listed: Iterable[tuple[object, Iterable[cfg.Opt]]]
) -> None:
    for group, options in listed:
        section = _normal(str(getattr(group, "name", group) or "DEFAULT"))
        names = known.setdefault(section, set())
        for opt in options:
            names.update((opt.name, opt.dest))
            for old in opt.deprecated_opts:
                where = _normal(old.group or section)
                known.setdefault(where, set()).update(
                    (old.name or opt.name, (old.name or "").replace("-", "_"))
                )


def _library_options() -> Iterator[list[tuple[object, list[cfg.Opt]]]]:
    """Yield the options of libraries, and of packages that have drivers."""
    points = metadata.entry_points(group="oslo.config.opts")
    packages = {
        point.dist.name
        for point in metadata.entry_points(group=servicegroup.NAMESPACE)
        if point.dist is not None
    }
    for point in points:
        if point.name in _LIBRARIES or (
            point.dist is not None and point.dist.name in packages
        ):
            try:
                yield point.load()()
            except Exception:
                # It lacks another library, or native threads refuse it.
                continue


def _meant(section: str, option: str, known: Known) -> str:
    """Return which option of nova_sg was probably meant, in brackets."""
    own: Known = {}
    _add(own, opts.list_opts())
    homes = [where for where, names in own.items() if option in names]
    if homes:
        return f" (it belongs to [{homes[0]}])"
    return _similar(option, known.get(_normal(section), set()), "{}")


def _similar(name: str, names: Iterable[str], form: str) -> str:
    found = difflib.get_close_matches(name, list(names), 1, _SIMILAR)
    if not found and name.upper() in names:
        found = [name.upper()]
    return f" (is it {form.format(found[0])}?)" if found else ""
