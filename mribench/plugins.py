"""Plug-ins: generators, metrics and extractors of other installed packages, by their entry points.

Names come from the packages' metadata, which runs none of their code. Loading a plug-in runs it.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any, Generic, Literal, TypeVar

from mribench.errors import MribenchError, UsageError

log = logging.getLogger(__name__)

Kind = Literal["generator", "metric", "extractor"]
NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}")  # it becomes a folder, a column and a word of the command line
T = TypeVar("T")


class PluginFailure(MribenchError):
    """A plug-in that cannot be loaded; says which package it is of."""


@dataclass(frozen=True)
class Plugin:
    """One entry point: `package` is "NAME VERSION" of the distribution that has it."""

    name: str
    package: str
    entry: metadata.EntryPoint


@cache
def _plugins(kind: Kind) -> Mapping[str, tuple[Plugin, ...]]:
    """Every entry point of a kind by its name; several packages may claim one name."""
    try:
        entries = metadata.entry_points(group=f"mribench.{kind}s")
    except Exception as error:  # one unreadable package makes the standard library fail for all of them
        log.warning("No plug-in can be used: an installed package has unreadable entry points (%s).", error)
        return {}
    named: dict[str, tuple[Plugin, ...]] = {}
    for entry in entries:
        plugin = Plugin(entry.name, _package(entry), entry)
        if NAME.fullmatch(entry.name):
            named[entry.name] = (*named.get(entry.name, ()), plugin)
        else:
            log.warning("The %s %r of %s is left out: %s", kind, entry.name, plugin.package, _NAME_RULE)
    return named


_NAME_RULE = "a name has lower-case letters, digits, '_' and '-', and begins with a letter."


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.metadata['Name']} {entry.dist.version}" if entry.dist else "an unnamed package"


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Everything of one kind by name: mribench's own and the plug-ins'; nothing is imported until it is asked for.

    `own` has objects, or "module:attribute". A plug-in must be an object (of kind "generator": a subclass) of
    `base`, and cannot take the name of one of mribench's own.
    """

    kind: Kind
    own: Mapping[str, T | str]
    base: str  # "module:attribute"

    def names(self) -> list[str]:
        """mribench's own in their order, then the plug-ins', whether or not these can be loaded."""
        return [*self.own, *sorted(set(self._others()) - set(self.own))]

    def package(self, name: str) -> str:
        """ "NAME VERSION" of the package that the plug-in `name` comes from; "" for mribench's own and for none."""
        plugins = () if name in self.own else self._others().get(name, ())
        return " and ".join(plugin.package for plugin in plugins)

    def get(self, name: str) -> T:
        """What is called `name`.

        Raises UsageError for an unknown name, with the nearest one, and for a name that two packages claim;
        PluginFailure when a plug-in cannot be loaded.
        """
        self.check(name)
        if name in self.own:
            value = self.own[name]
            return imported(value) if isinstance(value, str) else value
        (plugin,) = self._others()[name]
        return self._loaded(plugin)

    def check(self, name: str) -> None:
        """Raise UsageError for a name that nothing has, or that two packages claim. Imports nothing."""
        plugins = self._others().get(name, ())
        if name not in self.own and len(plugins) > 1:
            raise UsageError(
                f"The {self.kind} {name!r} is claimed by {' and by '.join(p.package for p in plugins)}. "
                "Uninstall all but one of these packages."
            )
        if name not in self.names():
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            choices = ", ".join(sorted(self.names()))
            raise UsageError(f"There is no {self.kind} called {name!r}.{hint} Choose one of: {choices}.")

    def why_unusable(self, name: str, package: str = "") -> str:
        """Why `name` cannot be used here; "" when it can. `package` is what a record says that it came from."""
        if name not in self.names():
            package = (
                f"package {package}" if package else "a newer mribench, or a package that is not recorded"
            )
            return f"needs {package}, which is not installed here"
        try:
            self.get(name)
        except (UsageError, PluginFailure) as error:
            return str(error)
        return ""

    def usable(self) -> Iterator[tuple[str, T]]:
        """Every name with what it stands for; what cannot be used is left out, with one warning that names it."""
        for name in self.names():
            try:
                yield name, self.get(name)
            except (UsageError, PluginFailure) as error:
                _warn_once(str(error))

    def _others(self) -> Mapping[str, tuple[Plugin, ...]]:
        plugins = _plugins(self.kind)
        for name in plugins.keys() & self.own.keys():
            packages = " and ".join(plugin.package for plugin in plugins[name])
            _warn_once(f"The {self.kind} {name!r} of {packages} is left out: mribench has its own {name!r}.")
        return plugins

    def _loaded(self, plugin: Plugin) -> T:
        what = f"The {self.kind} {plugin.name!r} of {plugin.package}"
        try:
            value = plugin.entry.load()
        except (Exception, SystemExit) as error:  # whatever the code of a stranger raises when it is imported
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PluginFailure(f"{what} cannot be loaded: {reason}") from error
        base = imported(self.base)
        fits = isinstance(value, type) and issubclass(value, base)
        if self.kind != "generator":
            fits = isinstance(value, base) and value.name == plugin.name
        if not fits:
            wanted = "a subclass" if self.kind == "generator" else f"an object named {plugin.name!r}"
            raise PluginFailure(f"{what} must be {wanted} of {self.base}, but is {value!r:.80}.")
        if absent := [fact for fact in base.__annotations__ if not hasattr(value, fact)]:
            raise PluginFailure(f"{what} must define {', '.join(absent)}.")
        return value


def imported(path: str) -> Any:
    """What "module:attribute" names."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
