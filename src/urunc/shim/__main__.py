"""Run one action of the shim. What the entry point imports, since that one is compiled anew each time."""

import os

from .main import main

os._exit(main())  # taking the interpreter apart would cost as much as an action
