"""The backends that every scenario runs on."""

from pathlib import Path

# The kernel tells which iptables it has; iptables-nft is on every host the ipset backend is made for.
BACKENDS = ["nftables", "nft", *(["legacy"] if Path("/proc/net/ip_tables_names").exists() else [])]
