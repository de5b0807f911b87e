"""A fingerprint of the code of a user's own space, by which a study notices that the code has changed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import site
import tokenize
from collections.abc import Iterator
from pathlib import Path


def code_fingerprint(name: str) -> str:
    """Returns a fingerprint of the code of ``module:object``; "" where there is no source file.

    It covers the module and every module of the same folder that it imports, directly or not, also inside functions.
    Libraries are left out, and so are comments, docstrings and blank lines.
    """
    module = name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    file = Path(spec.origin).resolve()
    top = module.partition(".")[0]
    folder = file.parents[module.count(".") + (file.name == "__init__.py")]
    shared = folder in {Path(place).resolve() for place in (*site.getsitepackages(), site.getusersitepackages())}
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        each = waiting.pop()
        if each in found or (shared and each.partition(".")[0] != top):
            continue
        path = _file_of(folder, each)
        if path is None:
            continue
        source = path.read_text("utf-8", errors="replace")
        try:
            found[each] = "".join(_meaning(source))
            waiting += _imports(source, each, is_package=path.name == "__init__.py")
        except (SyntaxError, tokenize.TokenError):  # such a module cannot be imported, and stands for itself
            found[each] = source
    text = "\n".join(f"{each}\n{found[each]}" for each in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_of(folder: Path, module: str) -> Path | None:
    place = folder.joinpath(*module.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Yields the modules that a module may import, with the packages that they are in."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1) if all(parts[:length]))


def _meaning(source: str) -> Iterator[str]:
    """Yields the tokens of a module without comments, docstrings and layout."""
    left_out = tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type not in left_out]
    marks = {tokenize.INDENT: "\x01", tokenize.DEDENT: "\x02", tokenize.NEWLINE: "\n"}
    begins = True  # whether a statement begins here
    for index, token in enumerate(tokens):
        ends = all(following.type == tokenize.NEWLINE for following in tokens[index + 1 : index + 2])
        alone = begins and token.type == tokenize.STRING and ends
        if not alone:
            yield marks.get(token.type, f"{token.string} ")
        begins = token.type in marks
