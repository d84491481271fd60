"""For programs that are tests too: without the library they are skipped."""

import os
import sys

import attention_ladder as ladder


def library_or_skip(backend):
    """Loads the library, "cuda" or "emulator". Without it says SKIP and exits with 77, unless
    ATTENTION_LADDER_PATH says where it should be: then its absence is an error."""
    try:
        ladder.library(backend)
    except ladder.NoLibrary as missing:
        if os.environ.get("ATTENTION_LADDER_PATH"):
            raise
        print(f"SKIP: {missing}")
        sys.exit(77)
