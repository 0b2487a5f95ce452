"""Command line: `python -m lib.prepare`, with the fields of `PrepareSettings` as options.

python -m lib.prepare --dataset ucf101 --status
python -m lib.prepare --dataset ucf101 --download true --person_boxes yolox
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, get_origin

import yaml

from lib.config import PrepareSettings
from lib.params import make_settings
from lib.prepare.status import status_text
from lib.prepare.steps import prepare, status_of


def parse_option(annotation: Any, text: str) -> Any:
    """Return the value of an option: numbers, booleans and lists as in YAML, text literally."""
    is_yaml = annotation in (bool, int, float) or get_origin(annotation) is list
    return yaml.safe_load(text) if is_yaml else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare a data set, or print its status with `--status`; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lib.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--status", action="store_true", help="print what would be done, and stop")
    fields = PrepareSettings.model_fields
    for name, field in fields.items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"default: {field.default!r}")
    texts = vars(parser.parse_args(arguments))
    only_status = texts.pop("status")
    try:
        values = {
            name: parse_option(fields[name].annotation, text)
            for name, text in texts.items()
            if text is not None
        }
        settings = make_settings(PrepareSettings, values, "command line")
        print(status_text(status_of(settings)))
        if not only_status:
            prepare(settings)
            print(status_text(status_of(settings)))
    except (ValueError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a lost network share
        print(f"error: {error}. Finished parts are kept: run again to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped. Finished parts are kept: run again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
