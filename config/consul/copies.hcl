# The same token of `radius-bridge serve`, in the datacenters that get copies ([datacenters] copies). Limit this policy to
# them and `bridge` to the home (consul acl policy create -valid-datacenter=…): there the token can then write what hosts
# are told of users, and nothing else. It must be known in all of them, so it cannot be a local token.
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
key "befw/$copy$" {
  policy = "write"
}
key "befw/$datacenters$" {
  policy = "write"
}
# Only to remove what hosts have told that are gone.
key_prefix "befw/$host$/" {
  policy = "write"
}
key "befw/$meta$" {
  policy = "write"
}
