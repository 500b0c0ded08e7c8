"""`tail`: logins and logouts, as the bridges record them."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from radius_bridge.cli.common import with_consul
from radius_bridge.cli.output import JsonOption, moment, printable
from radius_bridge.identity.bindings import EMPTY, NOBODY, Binding, Holding
from radius_bridge.process import run_until
from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import BadRecord
from radius_bridge.registry.follower import Follower
from radius_bridge.registry.keys import Keys
from radius_bridge.registry.records import decode_binding
from radius_bridge.registry.view import Changed

_TICK = 1.0
"""Seconds between two looks for what has expired: nobody announces that."""


class Watch:
    """Who has which address, and what has changed about that. Pure."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._holdings: dict[str, Holding] = {}
        self._bindings: dict[str, Binding] = {}

    def take(self, key: str, value: bytes | None, now: float) -> Iterator[dict[str, Any]]:
        """The logins and logouts that a new value of a binding means. One that cannot be read means nothing."""
        address = key.removeprefix(self._keys.bindings)
        try:
            binding = EMPTY if value is None else decode_binding(key, value)
        except BadRecord:
            return
        before = self._holdings.get(address, NOBODY)
        self._bindings[address] = binding
        holding = binding.holding(now)
        if holding.user != before.user:
            if before.user:
                yield self._line("logout", address, before, binding, now)
            if holding.user:
                yield self._line("login", address, holding, binding, now)
        self._keep(address, holding)

    def expire(self, now: float) -> Iterator[dict[str, Any]]:
        """The logouts of those whose time has run down by `now`."""
        for address in [address for address, holding in self._holdings.items() if holding.expires <= now]:
            holding = self._bindings[address].holding(now)
            if not holding.user:
                before = self._holdings[address]
                yield {**self._line("logout", address, before, self._bindings[address], now), "expired": True}
            self._keep(address, holding)

    def _keep(self, address: str, holding: Holding) -> None:
        if holding.user:
            self._holdings[address] = holding
        else:
            self._holdings.pop(address, None)
            self._bindings.pop(address, None)

    def _line(self, what: str, address: str, holding: Holding, binding: Binding, now: float) -> dict[str, Any]:
        session = holding.sessions[0]
        claim = binding.claims.get(session)
        return {
            "time": round(now, 3),
            "what": what,
            "user": holding.user,
            "address": address,
            "expires": holding.expires,
            "nas": session.partition("/")[0],
            "mac": "" if claim is None else claim.mac,
            "session": session,
            "expired": False,
        }


def tail(
    as_json: JsonOption = False,
    everybody: Annotated[bool, typer.Option("--all", "-a", help="First show who is logged in already.")] = False,
) -> None:
    """Follow logins and logouts as they are recorded, until Ctrl-C.

    With --json, one object a line. A session shows when it has an address.
    """

    async def work(consul: Consul, keys: Keys) -> None:
        watch = Watch(keys)
        begun = False

        def tell(lines: Iterator[dict[str, Any]]) -> None:
            for line in lines:
                if begun or everybody:
                    print(json.dumps(line, ensure_ascii=False) if as_json else _text(line), flush=True)

        def changed(batch: list[Changed]) -> None:
            now = time.time()
            for key, _, value in batch:
                tell(watch.take(key, value, now))

        follower = Follower(consul, keys, keys.identity_changes, changed=changed)
        follower.cover([keys.bindings])

        async def expire() -> None:
            nonlocal begun
            await follower.wait_complete()
            begun = True
            while True:
                tell(watch.expire(time.time()))
                await asyncio.sleep(_TICK)

        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run_until(stop, follower.run(), expire())

    try:
        with_consul(work)
    except BrokenPipeError:  # whoever read has gone: that is how `| head` ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _text(line: dict[str, Any]) -> str:
    what = f"{line['what']}{' (expired)' if line['expired'] else ''}"
    shown = printable(line["user"])
    where = " ".join(each for each in (line["nas"], line["mac"]) if each)
    ends = f", until {moment(line['expires'])}" if line["what"] == "login" else ""
    return f"{moment(line['time'])}  {what:<16}  {shown}  {line['address']}  ({where}{ends})"
