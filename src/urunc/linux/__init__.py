"""Effects without policy: thin, typed calls to the kernel. Imports the standard library and `errors` only."""
