"""Run one command line: what the entry points import. Here, and not in them, since an entry point is compiled anew
each time it runs."""

import gc
import os

from .cli import main

gc.disable()  # a verb ends before there is anything to collect
os._exit(main())  # taking the interpreter apart would cost as much as a verb
