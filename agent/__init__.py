"""The host agent: groups and grants in Consul to sets in the kernel."""
