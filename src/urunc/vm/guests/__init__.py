"""One file per guest: what it supports, and one pure function from (app, network, root, monitor) to its boot."""
