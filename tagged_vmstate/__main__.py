"""``python -m tagged_vmstate``, the same as the command `tagged-vmstate`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command; without the extra that it needs, say what to install."""
    try:
        _main()
    except KeyboardInterrupt:  # while it is imported; `run` has its own
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("tagged-vmstate: interrupted", file=sys.stderr)
        sys.exit(130)


def _main() -> None:
    try:
        from tagged_vmstate.cli.main import run  # noqa: PLC0415  # without the extra `cli` this cannot be imported
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit("tagged-vmstate: the command needs the packages click and rich: pip install click rich")
    run()


if __name__ == "__main__":
    main()
