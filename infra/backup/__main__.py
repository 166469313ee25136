"""`python -m infra.backup dump FILE` and `restore FILE`, for the ledger of DATABASE_URL."""

import argparse
import os
import sys
from pathlib import Path

from infra.backup.ledger import dump, restore
from infra.backup.tools import BackupError


def main() -> None:
    """Do what the command line says; end with 1 and a sentence where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.backup",
        description="Back up or restore the ledger of DATABASE_URL (or DATABASE_URL_FILE, such as "
        "PROPOSER_HOME/ledger.url of an embedded one).",
    )
    parser.add_argument("what", choices=["dump", "restore"])
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    try:
        act = dump if arguments.what == "dump" else restore
        print(act(_url(), arguments.file))
    except BackupError as error:
        print(f"infra.backup: {error}", file=sys.stderr)
        sys.exit(1)


def _url() -> str:
    url, file = os.environ.get("DATABASE_URL", ""), os.environ.get("DATABASE_URL_FILE", "")
    try:
        url = url or (Path(file).read_text(encoding="utf-8").strip() if file else "")
    except OSError as error:
        raise BackupError(f"DATABASE_URL_FILE: cannot be read ({os.strerror(error.errno or 0)})") from error
    if not url:
        raise BackupError("DATABASE_URL: not set; set it (or DATABASE_URL_FILE) to the ledger")
    return url


if __name__ == "__main__":
    main()
