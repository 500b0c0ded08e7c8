"""Which services a host protects, and for how long after they vanish."""

import json
import os
from pathlib import Path

import pytest

from agent.services import FORGET_AFTER, Found, Protected, find_in_consul, find_in_files
from radius_bridge.policy.services import Service, parse_ports
from radius_bridge.registry.answers import AgentService

SSH = Service("ssh_tcp_22", (parse_ports("22"),), "consul")
NOW = 1_800_000_000.0


def test_tagged_consul_services_are_protected_and_others_are_not() -> None:
    found = find_in_consul(
        {
            "ssh": AgentService("", "", ("befw",), 22),
            "web": AgentService("", "", ("prod",), 80),
            "dns": AgentService(
                "",
                "",
                (
                    "befw",
                    "udp",
                    "53/tcp",
                ),
                53,
            ),
            "game": AgentService(
                "",
                "",
                (
                    "befw",
                    "8080:8090/udp",
                    "22",
                ),
                0,
            ),
        }
    )
    assert {service.name: [str(port) for port in service.ports] for service in found.services} == {
        "ssh_tcp_22": ["22/tcp"],
        "dns_udp_53": ["53/udp", "53/tcp"],
        "game_udp_8080": ["8080:8090/udp", "22/tcp"],
    }
    assert not found.problems


def test_a_tagged_service_without_a_port_is_a_problem_that_names_it() -> None:
    found = find_in_consul({"odd": AgentService("", "", ("befw",), 0), "ssh": AgentService("", "", ("befw",), 22)})
    assert [service.name for service in found.services] == ["ssh_tcp_22"]
    assert "odd" in found.problems[0]


def test_files_in_befws_form_are_read(tmp_path: Path) -> None:
    entry = {"name": "App", "mode": "x", "protocol": "udp", "port": 33}
    entry["ports"] = ["22/tcp", "8080:8090", {"port": 34, "protocol": "udp"}]
    (tmp_path / "app.json").write_text(json.dumps(entry))
    (tmp_path / "note.txt").write_text("not a service")
    (service,) = find_in_files(tmp_path).services
    assert service.name == "app_udp_33"
    assert [str(port) for port in service.ports] == ["33/udp", "22/tcp", "8080:8090/udp", "34/udp"]


def test_a_broken_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "a", "port": 1')
    (tmp_path / "b.json").write_text('{"name": "b", "ports": ["70000"]}')
    (tmp_path / "c.json").write_text('{"name": "c", "port": 3}')
    (tmp_path / "d.json").write_text("[" * 100_000)
    found = find_in_files(tmp_path)
    assert [service.name for service in found.services] == ["c_tcp_3"]
    assert [problem.split(":")[0] for problem in found.problems] == [str(tmp_path / f"{n}.json") for n in "abd"]


def test_a_directory_that_does_not_exist_has_no_services(tmp_path: Path) -> None:
    assert find_in_files(tmp_path / "none") == Found(())


def looks(protected: Protected, since: float, until: float) -> None:
    """Nothing is found, as often as the agent looks."""
    for at in range(int(since), int(until), 30):
        protected.update([Found(())], at)


def test_a_vanished_service_keeps_its_rules_for_a_day() -> None:
    protected = Protected()
    assert protected.update([Found((SSH,))], NOW) == (SSH,)
    looks(protected, NOW + 5, NOW + FORGET_AFTER)
    assert protected.absent == {"ssh_tcp_22": NOW + 5}
    assert protected.update([Found(())], NOW + FORGET_AFTER + 4) == (SSH,)
    assert protected.update([Found(())], NOW + FORGET_AFTER + 5) == ()
    assert protected.absent == {}


@pytest.mark.parametrize("pause", [2 * FORGET_AFTER, -2 * FORGET_AFTER])
def test_time_in_which_nobody_looked_is_no_absence(pause: float) -> None:
    protected = Protected({SSH.name: SSH}, {SSH.name: NOW}, NOW + 3600)
    back = NOW + 3600 + pause
    assert protected.update([Found(())], back) == (SSH,)
    assert protected.absent == {SSH.name: back - 3600}, "an hour of absence was confirmed"


def test_a_service_that_is_listed_again_is_absent_no_more() -> None:
    protected = Protected({SSH.name: SSH}, {SSH.name: NOW}, NOW)
    assert protected.update([Found((SSH,))], NOW + 5) == (SSH,)
    assert protected.absent == {}


def test_only_an_absent_service_is_forgotten_on_purpose() -> None:
    protected = Protected()
    protected.update([Found((SSH,))], NOW)
    with pytest.raises(ValueError, match="still listed"):
        protected.forget(SSH.name)
    with pytest.raises(ValueError, match="not protected"):
        protected.forget("other_tcp_1")
    protected.update([Found(())], NOW + 5)
    protected.forget(SSH.name)
    assert protected.update([Found(())], NOW + 10) == ()


def test_a_directory_that_cannot_be_read_takes_no_service_away(tmp_path: Path) -> None:
    (tmp_path / "ssh.json").write_text('{"name": "ssh", "port": 22}')
    protected = Protected()
    protected.update([find_in_files(tmp_path)], NOW)
    unreadable = Found((), ("…",), frozenset({str(tmp_path)}))
    assert [each.name for each in protected.update([unreadable], NOW + 5)] == ["ssh_tcp_22"]
    assert protected.absent == {}


def test_a_service_whose_file_is_broken_right_now_counts_as_present() -> None:
    protected = Protected()
    app = Service("app_tcp_1", (parse_ports("1"),), "/etc/app.json")
    protected.update([Found((app,))], NOW)
    broken = Found((), ("…",), frozenset({"/etc/app.json"}))
    assert protected.update([broken], NOW + 2 * FORGET_AFTER) == (app,)


def test_one_name_from_two_sources_is_one_service_with_all_ports() -> None:
    other = Service("ssh_tcp_22", (parse_ports("2222"),), "/etc/ssh.json")
    (service,) = Protected().update([Found((SSH,)), Found((other,))], NOW)
    assert [str(port) for port in service.ports] == ["22/tcp", "2222/tcp"]


def test_a_file_whose_name_is_no_text_is_read_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"ssh-\xff.json")
    path.write_text('{"name": "ssh", "port": 22}')
    (service,) = find_in_files(tmp_path).services
    assert service.origin.encode() == str(tmp_path).encode() + rb"/ssh-\xff.json"
    path.write_text("{")
    (problem,) = find_in_files(tmp_path).problems
    assert problem.encode()
    protected = Protected({service.name: service})
    assert protected.update([find_in_files(tmp_path)], NOW) == (service,)
    assert not protected.absent


def test_a_service_of_two_sources_loses_no_port_while_one_of_them_cannot_be_read() -> None:
    path = "/etc/services.d/ssh.json"
    of_file = Service(SSH.name, (*SSH.ports, parse_ports("2222")), path)
    protected = Protected()
    both = protected.update([Found((of_file,)), Found((SSH,))], NOW)
    assert [str(each) for each in both[0].ports] == ["22/tcp", "2222/tcp"]
    torn = Found((), (f"{path}: is being replaced",), frozenset({path}))
    assert protected.update([torn, Found((SSH,))], NOW + 5) == both
    assert protected.update([Found(()), Found((SSH,))], NOW + 10) == (SSH,)
