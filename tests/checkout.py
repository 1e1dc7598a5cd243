"""Where things are in this checkout, and the interpreter that urunc is tested with."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
INTERPRETER = "/usr/bin/python3"
TESTGUEST = HERE.parent / "guest/build/testguest.elf"
