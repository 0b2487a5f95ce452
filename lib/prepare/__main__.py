"""Command line: `python -m lib.prepare`, with the fields of `PrepareSettings` as options.

python -m lib.prepare --dataset ucf101 --status
python -m lib.prepare --dataset ucf101 --download true --person_boxes yolox
"""

import argparse
import sys
from collections.abc import Sequence
from typing import get_origin

from lib.config import PrepareSettings
from lib.params import make_settings
from lib.prepare.status import status_text
from lib.prepare.steps import prepare, status_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare a data set, or print its status with `--status`; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--status", action="store_true", help="print the status only")
    for name, field in PrepareSettings.model_fields.items():
        nargs = "*" if get_origin(field.annotation) is list else None
        help_text = f"default: {field.default!r}"
        parser.add_argument(f"--{name}", metavar="VALUE", nargs=nargs, help=help_text)
    try:
        values = vars(parser.parse_args(arguments))
        only_status = values.pop("status")
        values = {name: value for name, value in values.items() if value is not None}
        settings = make_settings(PrepareSettings, values, "command line", are_texts=True)
        print(status_text(status_of(settings)))
        if not only_status:
            prepare(settings)
            print(status_text(status_of(settings)))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped. Finished parts are kept: run again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
