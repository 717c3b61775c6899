"""Size of the package: files, lines, and lines of code without docstrings, comments and blank lines."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "metaseg_nb"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source):
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    docstrings = [node.body[0] for node in documented if ast.get_docstring(node, clean=False) is not None]
    hidden = {number for text in docstrings for number in range(text.lineno, text.end_lineno + 1)}
    lines = enumerate(source.splitlines(), 1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in hidden for number, line in lines
    )


def size(folder):
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    return len(sources), sum(len(s.splitlines()) for s in sources), sum(code_lines(s) for s in sources)


if __name__ == "__main__":
    rooms = [folder for folder in sorted(PACKAGE.iterdir()) if (folder / "__init__.py").is_file()]
    print(f"{'room':<16}{'files':>6}{'lines':>8}{'code':>8}")
    for folder in [*rooms, PACKAGE]:
        print("{:<16}{:>6}{:>8,}{:>8,}".format(folder.name, *size(folder)))
