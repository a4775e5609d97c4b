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

"""Reads the configuration; errors name the option, the file, the remedy."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from oslo_config import cfg, iniparser
from oslo_log import log as logging

import nova_sg.conf
from nova_sg import exception, unknown_options
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

PROJECT = "nova-sg"

_T = TypeVar("_T")

# Options to which no value is a value.
_MAY_BE_EMPTY = ("mysql_sql_mode",)


def _my_ip() -> str:
    # Imported by those who refer to it alone: the module takes a while.
    from oslo_utils import netutils

    return netutils.get_my_ipv4()


# The values of options of Nova's that a nova.conf refers to without setting
# them, as Nova has them.
_NOVA_DEFAULTS: dict[str, Callable[[], str]] = {
    "my_ip": _my_ip,
    "my_block_storage_ip": lambda: "$my_ip",
}
# Stands for an option that a value refers to and that has no value: an option
# cannot be removed again once the files have been read.
_NO_OPTION = "<no option {}>"


def parse(
    arguments: Sequence[str],
    prog: str,
    cli_options: Iterable[cfg.Opt] = (),
) -> None:
    """Read arguments and files into CONF.

    Without --config-file, nova-sg.conf is read from where OpenStack's services
    have theirs: ~/.nova-sg, ~, /etc/nova-sg, /etc.

    :param cli_options: options that may also be given as arguments
    :raises ConfigError: a file cannot be read, or a value is wrong
    """
    from nova_sg import version

    names = [word.removeprefix("--config-file=") for word in arguments]
    names += cfg.find_config_files(PROJECT, prog)
    with explained(files=_files(names)):
        CONF.register_cli_opts(cli_options)
        CONF(
            list(arguments),
            project=PROJECT,
            prog=prog,
            version=version.version_string(),
        )
    check()


def check() -> None:
    """Check that every option of nova_sg has a value that is right.

    oslo.config checks a value when it is used: a service might find out
    after a week.

    :raises ConfigError: a value is wrong; the text names the option
    """
    for folder in CONF._namespace._config_dirs:
        # oslo.config reads nothing from a file, and raises nothing.
        if not os.path.isdir(os.path.expanduser(folder)):
            raise exception.ConfigError(
                f"--config-dir {folder}: this is not a folder. "
                "Use --config-file for a file"
            )
    for section in nova_sg.conf.SECTIONS:
        for group, opts in section.list_opts().items():
            for opt in opts:
                name = f"[{group}] {opt.name}"
                value = _value(group, opt)
                if (
                    value in (None, "")
                    and opt.default
                    and opt.dest not in _MAY_BE_EMPTY
                ):
                    raise exception.ConfigError(
                        f"{name}: no value is given. Leave the line out for "
                        f"the default, {opt.sample_default or opt.default}"
                    )


def _value(section: str, opt: cfg.Opt) -> Any:
    """Return the value of an option.

    It may refer, by a dollar sign, to an option of Nova's such as my_ip.
    Inside Nova that option is known. Here it has the value that stands in the
    same files.

    :raises ConfigError: it is wrong, or a reference leads nowhere
    """
    name = f"[{section}] {opt.name}"
    group = None if section == "DEFAULT" else section
    borrowed: set[str] = set()
    while True:
        try:
            with explained(name):
                # The public way hides which option it is that is missing.
                # oslo.config before 10.0 takes no name of a group here.
                found = CONF._get_group(group) if group else None
                value = CONF._get(opt.dest, found)
        except exception.ConfigError as error:
            missing = error.__context__
            if isinstance(missing, cfg.NoSuchGroupError):
                unknown = missing.group_name
                if unknown not in CONF.list_all_sections():
                    reference = _reference_into(unknown, opt, group)
                    raise _leads_nowhere(name, opt, reference) from None
                # The name of the option comes out when the group is known.
                CONF.register_group(cfg.OptGroup(unknown))
            elif isinstance(missing, cfg.NoSuchOptError):
                reference = missing.opt_name
                if reference in borrowed or not _borrow(reference):
                    raise _leads_nowhere(name, opt, reference) from None
                borrowed.add(reference)
            else:
                _check_references(name, opt, str(error))
                raise
        else:
            _check_references(name, opt, str(value))
            return value


def _reference_into(section: str, opt: cfg.Opt, group: str | None) -> str:
    """Return the reference into a section that the value of an option has."""
    with contextlib.suppress(LookupError, ValueError):
        value, _ = opt._get_from_namespace(CONF._namespace, group)
        return re.findall(rf"\b{re.escape(section)}\.[\w.]*", str(value))[0]
    return f"{section}."


def _borrow(name: str) -> bool:
    """Make an option known that is not one of nova_sg.

    :param name: OPTION, or SECTION.OPTION
    :returns: whether an option can have such a name
    """
    section, _, option = name.rpartition(".")
    default = _NOVA_DEFAULTS.get(name, lambda: _NO_OPTION.format(name))
    try:
        # It may be a password.
        made = cfg.StrOpt(option, default=default(), secret=True)
        CONF.register_opt(made, group=section or None)
    except (ValueError, cfg.Error):
        return False
    return True


def _check_references(name: str, opt: cfg.Opt, text: str) -> None:
    """Raise an error if a text has an option in it that has no value."""
    found = re.search(_NO_OPTION.format(r"(\S+)"), text)
    if found is not None:
        raise _leads_nowhere(name, opt, found[1])


def _leads_nowhere(
    name: str, opt: cfg.Opt, reference: str
) -> exception.ConfigError:
    # The reference may be a part of a password.
    what = "a name" if opt.secret else f"${reference}"
    return exception.ConfigError(
        f"{name} refers, by a dollar sign, to {what} that is neither an "
        "option of nova_sg nor set in the files. Set it there, or write "
        "out the value; a dollar sign that is part of the value is "
        "written $$"
    )


def unknown() -> str:
    """Return the names in nova_sg's own files that have no effect.

    :returns: a clause for operators; empty: every name is known
    """
    return unknown_options.find(
        _files([*(CONF.config_file or ()), *(CONF.config_dir or ())])
    )


def warn_of_unknown() -> None:
    """Log what unknown() returns, if it returns anything."""
    found = unknown()
    if found:
        LOG.warning(
            "Unknown names in the configuration: %s. They have no effect: "
            "correct or remove them",
            found,
        )


def reload(accept: Callable[[], None]) -> None:
    """Read the files again.

    :param accept: called with the new values in CONF; the old ones return
        if it raises ConfigError
    :raises ConfigError: a file or a value is wrong now; the old values stay
    """
    old, down_time = CONF._namespace, CONF.service_down_time
    with explained(files=_files([*CONF.config_file, *CONF.config_dir])):
        # The public method logs the lines that it cannot read: they may have
        # passwords.
        new = CONF._reload_config_files()
    _use(new)
    try:
        check()
        accept()
    except exception.ConfigError:
        _use(old)
        if CONF.service_down_time != down_time:
            CONF.set_override("service_down_time", down_time)
        raise


def _use(namespace: object) -> None:
    CONF._namespace = namespace
    # The API derived it from the old values. This also clears CONF's cache.
    CONF.clear_override("service_down_time")


class Derived(Generic[_T]):
    """A value that is made of options, and anew when options have changed.

    It is kept in the cache of oslo.config, which is emptied at every change:
    overrides, defaults, options that are registered, files that are read
    again. To read one option takes as long as to find this value.

    :param make: makes the value. If it raises an error, nothing is kept: the
        next use calls it again
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make

    def get(self) -> _T:
        """Return the value."""
        # A release of oslo.config without it would only be slower.
        cache: Any = getattr(CONF, "_ConfigOpts__cache", None)
        try:
            return cache[self]
        except (KeyError, TypeError):
            pass
        made = self._make()
        if cache is not None:
            cache[self] = made
        return made


@contextlib.contextmanager
def explained(subject: str = "", files: Iterable[str] = ()) -> Iterator[None]:
    """Raise the errors of oslo.config as ConfigError, with a remedy.

    Never with what stands in a file: it may be a password.

    :param subject: the option that is read; empty: the files are
    :param files: the files and folders that are read
    """
    try:
        yield
    except cfg.ConfigFileParseError as error:
        # Its text quotes the line; that of its cause does not.
        cause = error.__context__
        why = f"{error.config_file}: cannot be read"
        if isinstance(cause, iniparser.ParseError):
            why = f"{error.config_file}, line {cause.lineno}: {cause.msg}"
        raise exception.ConfigError(
            f"{why}. Write [SECTION], OPTION = VALUE, or # and a comment; a "
            "line that begins with a space continues the one above it"
        ) from None
    except (
        # Their texts name the reference.
        cfg.NoSuchGroupError,
        cfg.NoSuchOptError,
        cfg.TemplateSubstitutionError,
        RecursionError,
    ):
        raise exception.ConfigError(
            f"{subject or 'a value'} refers, by a dollar sign, to itself, to "
            "a section, or to an option that does not exist here. Write out "
            "the value; a dollar sign that is part of the value is written $$"
        ) from None
    except cfg.Error as error:
        text = re.sub(r"LocationInfo\(.*?detail='(.*?)'\)", r"\1", str(error))
        if hasattr(error, "config_files") or hasattr(error, "config_dir"):
            text += ". Correct its name, or its owner or mode"
        text = " ".join(text.split())
        raise exception.ConfigError(
            f"{subject}: {text}" if subject else text
        ) from None
    except UnicodeDecodeError:
        name = next(filter(_is_no_text, files), "a configuration file")
        raise exception.ConfigError(
            f"{name}: not a text file in UTF-8"
        ) from None
    except OSError as error:
        raise exception.ConfigError(
            f"{error.filename}: {error.strerror}"
        ) from None


def _is_no_text(name: str) -> bool:
    with contextlib.suppress(OSError), open(name, encoding="utf-8") as file:
        try:
            file.read()
        except UnicodeDecodeError:
            return True
    return False


def _files(names: Iterable[str]) -> Iterator[str]:
    """Yield those names that are files, and the files of folders."""
    for name in map(os.path.expanduser, names):
        found = glob.glob(os.path.join(glob.escape(name), "*.conf"))
        yield from filter(os.path.isfile, [name, *found])
