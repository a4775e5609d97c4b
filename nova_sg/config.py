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

from oslo_config import cfg, iniparser
from oslo_log import log as logging

import nova_sg.conf
from nova_sg import exception, unknown_options
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

PROJECT = "nova-sg"


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
            values = CONF if group == "DEFAULT" else CONF[group]
            for opt in opts:
                name = f"[{group}] {opt.name}"
                with explained(name):
                    value = values[opt.dest]
                if value in (None, "") and opt.default:
                    raise exception.ConfigError(
                        f"{name}: no value is given. Leave the line out for "
                        f"the default, {opt.sample_default or opt.default}"
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
        cfg.NoSuchOptError,
        cfg.TemplateSubstitutionError,
        RecursionError,
    ):
        raise exception.ConfigError(
            f"{subject or 'a value'} refers, by a dollar sign, to itself or "
            "to an option that does not exist here. Write out the value; a "
            "dollar sign that is part of the value is written $$"
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
