"""Pure policy: groups, grants and services in, what each host must enforce out."""
