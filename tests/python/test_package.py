"""What the package promises: types, docstrings, names."""

import ast
import inspect
import pathlib

import pfc
import pytest

FOLDER = pathlib.Path(pfc.__file__).parent
STUB = ast.parse((FOLDER / "__init__.pyi").read_text())


def stub_signatures():
    """(name, arguments with their kinds) of every function and method of the stub."""
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.decorator_list:
                    yield f"{node.name}.{member.name}", member


def described(arguments):
    """Names, and which are by position alone, by either, or by name alone."""
    positional = [arg.arg for arg in arguments.posonlyargs + arguments.args]
    return positional, [arg.arg for arg in arguments.kwonlyargs]


def test_it_is_typed():
    assert (FOLDER / "py.typed").exists()


def test_every_public_name_is_in_the_stub_and_the_other_way_round():
    named = set()
    for node in STUB.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            named.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            named.update(alias.asname for alias in node.names)
    assert named == set(pfc.__all__)
    (listed,) = (n.value for n in STUB.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__")
    assert ast.literal_eval(listed) == pfc.__all__
    assert all(hasattr(pfc, name) for name in pfc.__all__)


@pytest.mark.parametrize(
    ("name", "node"), list(stub_signatures()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_signatures_of_the_stub_are_those_of_the_code(name, node):
    item = pfc
    for part in name.split("."):
        if part == "__new__":
            break
        item = getattr(item, part)
    if name.split(".")[-1] in ("__iter__", "__next__", "__len__"):
        return
    parameters = inspect.signature(item).parameters.values()
    kinds = inspect.Parameter
    found = [p.name for p in parameters if p.kind is not kinds.KEYWORD_ONLY]
    by_name = [p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY]
    expected, expected_by_name = described(node.args)
    if name.endswith("__new__"):
        expected = expected[1:]
    if name.endswith(("__getitem__", "__getitems__")):
        assert len(found) == len(expected)
        return
    assert (found, by_name) == (expected, expected_by_name)


def public_items():
    for name in pfc.__all__:
        item = getattr(pfc, name)
        yield name, item
        if inspect.isclass(item) and item.__module__ == "pfc":
            for member, value in vars(item).items():
                if not member.startswith("_"):
                    yield f"{name}.{member}", value


@pytest.mark.parametrize(
    ("name", "item"), list(public_items()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_public_item_has_a_docstring(name, item):
    assert item.__doc__ and len(item.__doc__) > 20
    # pyo3's signatures stand apart from the text.
    assert "--\n" not in item.__doc__


def test_every_public_item_of_pfc_torch_has_a_docstring_and_types():
    pytest.importorskip("torch")
    import pfc.torch

    for name in pfc.torch.__all__:
        item = getattr(pfc.torch, name)
        assert item.__doc__ and len(item.__doc__) > 20, name
        members = vars(item).items() if inspect.isclass(item) else [(name, item)]
        for member, value in members:
            # What a class has of its base, torch.nn.Module or Sampler, is documented there.
            if member.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
                continue
            assert value.__doc__, f"{name}.{member}"
            code = value.fget if isinstance(value, property) else value
            annotated = inspect.signature(code).return_annotation
            assert annotated is not inspect.Signature.empty, f"{name}.{member}"


def test_help_begins_with_what_it_is_for_and_names_the_errors():
    import pydoc

    text = pydoc.render_doc(pfc, renderer=pydoc.plaintext)
    assert "Face recognition data sets" in text[:400]
    for name in pfc.__all__:
        assert name in text, name


def test_the_version_is_that_of_the_package():
    import importlib.metadata

    try:
        version = importlib.metadata.version("pfc")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the module was not installed from a wheel")
    assert version == pfc.__version__


def test_the_version_is_that_of_the_workspace():
    manifest = (pathlib.Path(__file__).parents[2] / "Cargo.toml").read_text()
    assert f'\nversion = "{pfc.__version__}"\n' in manifest
