"""What a machine is: guests, monitors and the records between them. Pure: no effect."""
