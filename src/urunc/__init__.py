"""urunc: an OCI runtime whose containers are unikernels and single-application microVMs."""

__version__ = "0.1.0"
