"""Imports of large libraries without the parts that nobody here uses: they cost memory on every protected host, and
time in every command.

What is left out is missing only in the library that is being imported: it can be imported later.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType


class _Nothing(ModuleType):
    """Stands for a module that is left out: all that is imported from it is None, and it has no submodules."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def without(*modules: str) -> Iterator[None]:
    """Imports within do not load these modules."""
    left_out = [name for name in modules if name not in sys.modules]
    sys.modules.update({name: _Nothing(name) for name in left_out})
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]


@contextmanager
def submodules_only(package: str) -> Iterator[None]:
    """Imports within load submodules of `package` without what its `__init__` would load."""
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:  # it is there already, or not installed, as the import will say
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def without_certificates() -> Iterator[None]:
    """Imports within do not load the system's certificates; a TLS context that is made meanwhile trusts nobody."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # as OpenSSL has them
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)
