"""What the outside says: config.json, annotations, the host's configuration. Pure: no effect, no policy of the host."""
