"""The command `tagged-vmstate`: a thin file for a group of commands, all printing in `render`."""
