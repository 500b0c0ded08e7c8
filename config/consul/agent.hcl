# Token of `radius-bridge-agent`: reads what hosts enforce. With enable_key_list_policy = true in Consul's acl block, a
# token that lost this policy is told 403; without it, it would be shown an empty registry.
key_prefix "befw/$alias$/" {
  policy = "list"
}
key_prefix "befw/$service$/" {
  policy = "list"
}
key_prefix "befw/$ipset$/" {
  policy = "list"
}
key_prefix "befw/$changes$/access/" {
  policy = "list"
}
key_prefix "befw/$confirm$/" {
  policy = "list"
}
key "befw/$meta$" {
  policy = "read"
}
agent_prefix "" {
  policy = "read"
}
service_prefix "" {
  policy = "read"
}
