"""tools/check_imports.py finds what it is there to find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = Path(__file__).resolve().parents[2] / "tools" / "check_imports.py"


def check(tmp_path: Path, files: dict[str, str]) -> tuple[int, str]:
    """Exit status and output of the checker on a package made of `files`."""
    root = tmp_path / "quipu"
    for name, text in {"__init__.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, str(CHECKER), str(root)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_allowed_imports_pass(tmp_path: Path) -> None:
    files = {
        "errors.py": "import json\n",
        "gguf/__init__.py": "from quipu.gguf.reader import Reader\n",
        "gguf/reader.py": "from quipu.errors import QuipuError\nclass Reader: ...\n",
        "models/__init__.py": "from quipu.gguf import reader\nimport quipu.errors\n",
        "cli/__init__.py": "from quipu import __version__\n",
        "cli/verbs.py": "def load():\n    from quipu.models import x\n",
        "__init__.py": "def __getattr__(name):\n    import importlib\n    importlib.import_module('quipu.models')\n",
    }
    assert check(tmp_path, files) == (0, "check_imports: 0 complaint(s) about 7 modules\n")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"gguf/a.py": "from quipu.models import x\n"}, "gguf must not import quipu.models"),
        ({"store/a.py": "import quipu.convert\n"}, "store must not import quipu.convert"),
        ({"quant/a.py": "from ..engine import x\n"}, "quant must not import quipu.engine"),
        ({"gguf/a.py": "from quipu import LLM\n"}, "import the defining module"),
        ({"helpers/a.py": "import quipu.errors\n"}, "package 'helpers' has no row"),
        ({"types.py": "if TYPE_CHECKING:\n    from quipu.api import LLM\n"}, "types must not import quipu.api"),
        ({"engine/a.py": "def f():\n    from quipu.errors import x\n"}, "move the import of quipu.errors to the top"),
        ({"api.py": "def f():\n    importlib.import_module('quipu.chat')\n"}, "move the import of quipu.chat"),
        (
            {"gguf/a.py": "from quipu.gguf import b\n", "gguf/b.py": "from .a import x\n"},
            "import cycle: quipu.gguf.a -> quipu.gguf.b -> quipu.gguf.a",
        ),
        (
            {"gguf/__init__.py": "from .a import x\n", "gguf/a.py": "from quipu.gguf import x\n"},
            "import cycle: quipu.gguf -> quipu.gguf.a -> quipu.gguf",
        ),
    ],
)
def test_forbidden_imports_are_named(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    status, output = check(tmp_path, files)
    assert status == 1
    assert complaint in output
