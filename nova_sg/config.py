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

"""Reading the configuration, with errors that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oslo_config import cfg

import nova_sg.conf
from nova_sg import exception
from nova_sg.conf import CONF

PROJECT = "nova-sg"


def parse(
    arguments: Sequence[str],
    prog: str,
    cli_options: Iterable[cfg.Opt] = (),
) -> None:
    """Read arguments and files into CONF.

    Without --config-file, nova-sg.conf is looked for where OpenStack's
    services look: ~/.nova-sg, ~, /etc/nova-sg, /etc.

    :param cli_options: options that may be given as arguments, too
    :raises ConfigError: a file cannot be read, or a value is wrong
    """
    from nova_sg import version

    try:
        CONF.register_cli_opts(cli_options)
        CONF(
            list(arguments),
            project=PROJECT,
            prog=prog,
            version=version.version_string(),
        )
    except cfg.Error as error:
        raise exception.ConfigError(_words(error)) from error
    check()


def check() -> None:
    """See to it that every option of ours can be read.

    oslo.config looks at a value when it is used; a service that has been
    running for a week is no place to find out.

    :raises ConfigError: one cannot; the text names it
    """
    for section in nova_sg.conf.SECTIONS:
        for group, opts in section.list_opts().items():
            values = CONF if group == "DEFAULT" else CONF[group]
            for opt in opts:
                try:
                    values[opt.dest]
                except cfg.ConfigFileValueError as error:
                    raise exception.ConfigError(_words(error)) from error


def reload() -> None:
    """Read the files again.

    :raises ConfigError: a file or a value is wrong now; the old values stay
    """
    old = CONF._namespace
    if not CONF.reload_config_files():
        raise exception.ConfigError(
            "The configuration cannot be read; see the message before"
        )
    try:
        check()
    except exception.ConfigError:
        CONF._namespace = old
        raise


def _words(error: cfg.Error) -> str:
    return " ".join(str(error).split())
