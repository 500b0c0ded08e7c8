"""The host agent: groups and grants in Consul to sets in the kernel."""

import radius_bridge  # noqa: F401 — it imports libraries that both use without what neither needs
