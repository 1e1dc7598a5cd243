"""Run one action of the shim. What the entry point imports, since that one is compiled anew each time."""

import gc
import os

from .main import main

gc.disable()  # an action ends before there is anything to collect; `serve` takes it up again
os._exit(main())  # taking the interpreter apart would cost as much as an action
