"""What `--config=FILE --help` says: the fields of a config with the comments in its file."""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator

from dsd_jax.configuration import flatten, load_config, split_spec
from dsd_jax.defaults import data_defaults, recipe_defaults, run_defaults

FieldPath = tuple[str, ...]  # of a field: ("learn", "lora", "rank")


def describe(spec: str) -> str:
    """One line per field of the config at `spec`: name, default and comment, as in the file or in
    `defaults`.
    """
    source = split_spec(spec)[0].read_text("utf-8")
    comments = field_comments(source)
    run, recipe, data = (
        field_comments(inspect.getsource(function))
        for function in (run_defaults, recipe_defaults, data_defaults)
    )
    values = dict(flatten(load_config(spec).to_dict()))
    first = run if "_defaults(" in source else ()  # in whose order the fields stand
    names = [name for name in dict.fromkeys([*first, *comments, *values]) if name in values]
    settings = {name: f"--config.{name}={show_value(values[name])}" for name in names}
    width = min(max(map(len, settings.values()), default=0), 48)

    def comment(name: str) -> str:
        shared = {"learn": recipe, "data": data}.get(name.partition(".")[0], run)
        return comments.get(name) or shared.get(name.rpartition(".")[2], "")

    return "\n".join(f"  {settings[n]:<{width}}  {comment(n)}".rstrip() for n in names)


def show_value(value: object) -> str:
    """As one would type it in an override."""
    if isinstance(value, tuple | list) and value:
        return ",".join(map(str, value))
    return str(value)


def field_comments(source: str) -> dict[str, str]:
    """{dotted name of a field: comment at the end of the line that sets it, or ""}, in order.

    Understood are `config.a.b = 1  # comment`, the same through a name for a part of the config
    (`lora = config.lora = ConfigDict()`), copies of a part (`config.b = ConfigDict(lora)`) and
    keywords (`dict(b=1,  # comment`).
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("#: ") for t in tokens if t.type == tokenize.COMMENT}
    fields = {}
    for path, line, copied in settings_of(ast.parse(source)):
        if copied:
            length = len(copied)
            inner = {f[length:]: c for f, c in fields.items() if f[:length] == copied}
            fields |= {path + rest: comment for rest, comment in inner.items() if rest}
        fields[path] = comments.get(line) or fields.get(path, "")
    return {".".join(path): comment for path, comment in fields.items()}


def settings_of(tree: ast.AST) -> Iterator[tuple[FieldPath, int, FieldPath]]:
    """Yields what is set: its path, the line, and the path of the part that it copies, or ()."""
    parts = {}  # {name of a variable: path of the part of the config that it stands for}

    def visit(node: ast.AST, prefix: FieldPath) -> Iterator[tuple[FieldPath, int, FieldPath]]:
        path = prefix
        if isinstance(node, ast.Assign):
            path = assigned_path(node, parts)
        elif isinstance(node, ast.keyword) and node.arg:
            path = (*prefix, node.arg)
        if path != prefix:
            yield path, node.lineno, copied_path(node.value, parts)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, path)

    return visit(tree, ())


def assigned_path(node: ast.Assign, parts: dict[str, FieldPath]) -> FieldPath:
    """The path that an assignment sets, () if none; remembers plain names for it in `parts`."""
    path = ()
    for target in [*node.targets, node.value]:
        if isinstance(target, ast.Attribute) and not path:
            root, *rest = ast.unparse(target).split(".")
            path = (*parts.get(root, ()), *rest)
    for target in node.targets:
        if isinstance(target, ast.Name):
            parts[target.id] = path
    return path


def copied_path(value: ast.expr, parts: dict[str, FieldPath]) -> FieldPath:
    """The path of `lora` in `ConfigDict(lora)`."""
    if isinstance(value, ast.Call) and len(value.args) == 1 and isinstance(value.args[0], ast.Name):
        return parts.get(value.args[0].id, ())
    return ()
