"""DHCP leases: where they are learnt from, and how they come to who records them."""

from collections.abc import Iterable

from radius_bridge.lease_settings import LeaseSettings
from radius_bridge.leases.dnsmasq import DnsmasqFile
from radius_bridge.leases.keafile import KeaFile
from radius_bridge.leases.keasocket import KeaSocket
from radius_bridge.leases.outbox import Submit
from radius_bridge.leases.push import Push
from radius_bridge.leases.source import Source
from radius_bridge.radius.clients import Networks


def sources(settings: Iterable[LeaseSettings], submit: Submit) -> list[Source]:
    """The sources of leases, ready to `run`; what they learn goes to `submit` until it is recorded.

    Secrets are read now. Raises ValueError if one is gone.
    """
    return [_source(each, submit) for each in settings]


def _source(settings: LeaseSettings, submit: Submit) -> Source:
    name, networks = settings.name, Networks(settings.networks)
    match settings:
        case LeaseSettings(type="kea", path=path) if path is not None:
            return KeaFile(name, networks, submit, path)
        case LeaseSettings(type="kea", control_socket=path) if path is not None:
            return KeaSocket(name, networks, submit, path)
        case LeaseSettings(type="dnsmasq", path=path) if path is not None:
            return DnsmasqFile(name, networks, submit, path)
        case LeaseSettings(type="push", listen=listen) if listen is not None:
            allowed = Networks(settings.allowed)
            return Push(name, networks, submit, listen=listen, token=settings.read_token(), allowed=allowed)
    raise ValueError(f"{name}: a source of type {settings.type!r} is not complete")
