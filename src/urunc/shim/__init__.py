"""containerd's task service (shim API v2): ttrpc in, `runtime` by fork, events out. One process per pod."""
