# Token of `radius-bridge serve`: who is behind which address. It cannot write a grant or an engineers' group.
key_prefix "befw/" {
  policy = "list"
}
key_prefix "befw/$alias$/$user." {
  policy = "write"
}
key_prefix "befw/$alias$/$radius." {
  policy = "write"
}
key_prefix "befw/$changes$/access/bridge/" {
  policy = "write"
}
key_prefix "befw/$changes$/identity/" {
  policy = "write"
}
key_prefix "befw/$binding$/" {
  policy = "write"
}
key_prefix "befw/$session$/" {
  policy = "write"
}
key_prefix "befw/$restart$/" {
  policy = "write"
}
key_prefix "befw/$health$/" {
  policy = "write"
}
key_prefix "befw/$lock$/" {
  policy = "write"
}
# Only to remove what hosts have told that are gone.
key_prefix "befw/$host$/" {
  policy = "write"
}
key "befw/$meta$" {
  policy = "write"
}
key "befw/$names$" {
  policy = "write"
}
# With copies in other datacenters; there the token needs copies.hcl.
key "befw/$datacenters$" {
  policy = "write"
}
session_prefix "" {
  policy = "write"
}
agent_prefix "" {
  policy = "read"
}
