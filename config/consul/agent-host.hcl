# Besides agent.hcl, for the token of one host: it tells of itself, and writes nothing else. One policy per host, with its
# name (what `radius-bridge-agent status` begins with) for NODE:
#   sed s/NODE/web1/ agent-host.hcl | consul acl policy create -name agent-web1 -rules -
key "befw/$host$/NODE" {
  policy = "write"
}
