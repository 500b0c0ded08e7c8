"""Programs the kernel: desired sets and rules in, netfilter out."""
