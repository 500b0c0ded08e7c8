# Token of engineers (`radius-bridge grant`, `group`, …): who may reach what. It cannot write who is behind an address.
key_prefix "befw/" {
  policy = "list"
}
key_prefix "befw/$alias$/" {
  policy = "write"
}
key_prefix "befw/$alias$/$user." {
  policy = "list"
}
key_prefix "befw/$alias$/$radius." {
  policy = "list"
}
key_prefix "befw/$changes$/access/engineer/" {
  policy = "write"
}
key_prefix "befw/$service$/" {
  policy = "write"
}
key_prefix "befw/$ipset$/" {
  policy = "write"
}
key_prefix "befw/$confirm$/" {
  policy = "write"
}
key "befw/$meta$" {
  policy = "write"
}
# `radius-bridge publish`: one of several at a time.
key "befw/$lock$/publish-engineer" {
  policy = "write"
}
key "befw/$lock$/published-engineer" {
  policy = "write"
}
session_prefix "" {
  policy = "write"
}
agent_prefix "" {
  policy = "read"
}
