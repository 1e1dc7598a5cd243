"""One file per monitor: what it needs, what it can do, and one pure `launch(machine, host) -> Launch`."""
