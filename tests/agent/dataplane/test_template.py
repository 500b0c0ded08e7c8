"""A site's own template is taken if it has what it needs, and refused with the reason if not."""

from pathlib import Path

import pytest

from agent.dataplane import choose
from agent.dataplane.template import TemplateError, built_in, site_template

NAMES = list(choose.TEMPLATES.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_template_is_a_good_beginning(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("# ours: $1 a block in a comment is $nothing\n" + built_in(name).text + "# the end\n")
    assert site_template(path, name).text == path.read_text()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("\n$input_failsafe\n", "\n", r"the block \$input_failsafe is missing; begin with"),
        ("\n$input_failsafe\n", "\n$input_failsafe\n$input_failsafe\n", r"\$input_failsafe is there twice"),
        ("\n$input_failsafe\n", "\n$input_failsafe\n$others\n", r"there is no block \$others"),
        ("\n$input_failsafe\n", "\n$input_failsafe and more\n", r"line \d+: a block stands on a line of its own"),
        ("\n$input_failsafe\n", "\n$input_failsafe\n100$\n", r"line \d+: a block stands on a line of its own"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(tmp_path: Path, name: str, old: str, new: str, complaint: str) -> None:
    path = tmp_path / name
    path.write_text(built_in(name).text.replace(old, new))
    with pytest.raises(TemplateError, match=complaint):
        site_template(path, name)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("iptables.rules", "-A INPUT -p tcp --dport 80 -j ACCEPT"),
        ("iptables.rules", "-F INPUT"),
        ("iptables.rules", "COMMIT"),
        ("nftables.nft", "add rule inet filter input accept"),
        ("nftables.nft", "table inet other {\n}"),
        ("nftables.nft", "}"),
    ],
)
def test_a_template_that_would_change_what_is_not_ours_is_refused(tmp_path: Path, name: str, line: str) -> None:
    path = tmp_path / name
    path.write_text(built_in(name).text + line + "\n")
    with pytest.raises(TemplateError, match=r"line \d+: .* is not for a chain of ours"):
        site_template(path, name)


def test_a_template_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"missing\.nft.*No such file"):
        site_template(tmp_path / "missing.nft", "nftables.nft")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="binary"):
        site_template(tmp_path / "binary", "nftables.nft")


def test_every_block_of_the_template_is_filled_and_comments_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(built_in("iptables.rules").text)
    blocks = {name: [f"rule of {name}"] for name in ("a", "b")}
    made = site_template(path, "iptables.rules")
    assert type(made)("# $c\n$a\n\nliteral\n$b\n").fill(blocks) == ["rule of a", "literal", "rule of b"]
