"""Pure identity: accounting events in, who is behind which address out."""
