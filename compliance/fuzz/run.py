"""Fuzz a parser with atheris, guided by coverage, from the inputs that are kept.

    python -m compliance.fuzz.run http1 websocket [--seconds 600] [--keep]

Needs `pip install atheris`; it is no dependency of the tests.  Exit status 1 if an input broke a
parser's word: it is printed in base64, and belongs into a test once the parser is mended.  With
--keep the inputs that reach something new are added to `inputs/`.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

from compliance.fuzz import corpus
from compliance.fuzz.targets import TARGETS

#: An input is longer than this for no rule of any parser; the most memory in MiB.
MOST_BYTES = 2000
MOST_MEMORY = 512

CHILD = """
import sys
import atheris
with atheris.instrument_imports(include=["channels.wire", "websockets", "hpack", "h2"]):
    from compliance.fuzz.targets import TARGETS
atheris.Setup(sys.argv[1:], TARGETS[{target!r}])
atheris.Fuzz()
"""


def fuzz(target: str, seconds: int, keep: bool) -> bool:
    """Whether the target kept its word for so long."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        found = folder / "found"
        found.mkdir()
        for number, data in enumerate(corpus.load(target)):
            (found / f"{number:05}").write_bytes(data)
        done = _child(
            target,
            folder,
            f"-max_total_time={seconds}",
            f"-max_len={MOST_BYTES}",
            f"-rss_limit_mb={MOST_MEMORY}",
            "-timeout=10",
            str(found),
        )
        runs = [line for line in done.stderr.splitlines() if "DONE" in line]
        print(f"{target}: {runs[-1].strip() if runs else 'stopped early'}", flush=True)
        broken = [*folder.glob("crash-*"), *folder.glob("oom-*"), *folder.glob("timeout-*")]
        for each in broken:
            print(f"{each.name}: {base64.b64encode(each.read_bytes()).decode()}")
            print("\n".join(done.stdout.splitlines()[-12:]))
        if keep and not broken:
            corpus.save(target, corpus.smallest(target, [f.read_bytes() for f in found.iterdir()]))
        return done.returncode == 0 and not broken


def _child(target: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run libFuzzer, which ends its process."""
    return subprocess.run(
        [sys.executable, "-c", CHILD.format(target=target), f"-artifact_prefix={folder}/", *words],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no such targets: {', '.join(sorted(unknown))}")
    good = [fuzz(each, options.seconds, options.keep) for each in options.targets or TARGETS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
