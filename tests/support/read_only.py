"""A copy of the package, a home and a working directory that cannot be written, and processes that are held to that."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CAPBSET_DROP, _PASS_OVER_PERMISSIONS = 24, 1
_ALL_READ_ONLY = """
while read -r _ place _; do mount -o remount,bind,ro "$place"; done < /proc/self/mounts 2>/dev/null
cd "$1" && shift && exec "$@"
"""


@dataclass(frozen=True)
class Sealed:
    """Folders of one trial.

    Attributes:
        package, home, work: cannot be written; `work` is where processes start.
        temporary: can be.
    """

    package: Path
    home: Path
    work: Path
    temporary: Path

    @classmethod
    def below(cls, folder: Path) -> Sealed:
        """Copy the package, without what has been compiled; nothing is sealed yet."""
        made = cls(*(folder / name for name in ("package", "home", "work", "temporary")))
        for part in ("nash_swarm", "solvers", "quantizers"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, made.package / part, symlinks=True, ignore=ignored)
        for place in (made.home, made.work, made.temporary):
            place.mkdir()
        return made

    def seal(self, *, open_again: bool = False) -> None:
        """Close what is not to be written to its owner, too; or open it for who cleans up."""
        for place in (self.package, self.home, self.work):
            for folder, _, _ in os.walk(place):
                os.chmod(folder, 0o755 if open_again else 0o555)  # noqa: PTH101

    def written(self) -> list[str]:
        """All that is in the folders that cannot be written."""
        return sorted(str(path) for place in (self.package, self.home, self.work) for path in place.rglob("*"))

    def environment(self, **more: str) -> dict[str, str]:
        """The variables that a process starts with: none of ours but those that spare processors."""
        kept = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
        return kept | {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(self.package), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        } | more  # fmt: skip

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A Python that permissions apply to, even if it is root's."""
        return subprocess.run(
            [sys.executable, *command], cwd=self.work, env=self.environment(**variables), capture_output=True,
            text=True, timeout=900, preexec_fn=_held_to_permissions,
        )  # fmt: skip

    def frozen(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A Python for which all file systems are read-only; for root, in a mount namespace of its own."""
        inner = ["sh", "-c", _ALL_READ_ONLY, "sh", str(self.work), sys.executable, *command]
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", *inner], env=self.environment(), capture_output=True,
            text=True, timeout=900,
        )  # fmt: skip


_libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def _held_to_permissions() -> None:
    """Between fork and exec: the new program will not have root's right to pass over permissions."""
    if _libc is not None and os.getuid() == 0:
        _libc.prctl(_CAPBSET_DROP, _PASS_OVER_PERMISSIONS, 0, 0, 0)


def lines(text: str) -> Sequence[str]:
    """Lines that say something."""
    return [line for line in text.splitlines() if line.strip()]
