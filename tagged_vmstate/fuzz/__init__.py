"""Fuzzing: of the readers of the format, and of devices through it.

`targets` says what is run and what counts as a defect, `mutate` makes inputs, `engine` runs them; `strategies` are for
Hypothesis. The command is `tagged-vmstate fuzz`.
"""

from tagged_vmstate.fuzz.engine import Limits, Outcome, fuzz
from tagged_vmstate.fuzz.targets import Defect, Devices, Dumps, Json, Snapshots, Streams, Tables, Target

__all__ = ["Defect", "Devices", "Dumps", "Json", "Limits", "Outcome", "Snapshots", "Streams", "Tables", "Target", "fuzz"]
