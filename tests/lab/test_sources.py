"""A user's file, and what it imports from beside it."""

from normwright.lab.sources import own_sources


def test_imports_are_followed_through_files_and_packages(tmp_path):
    files = {
        "main.py": "import one\nimport torch\nfrom package.deep import thing\n",
        "one.py": "def later():\n    from two import x\n",
        "two.py": "import one\n",
        "alone.py": "",
        "package/__init__.py": "",
        "package/deep.py": "from . import beside\nfrom .. import two\n",
        "package/beside.py": "",
        "package/alone.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {path.relative_to(tmp_path).as_posix() for path in own_sources(tmp_path / "main.py", tmp_path)}
    assert found == set(files) - {"alone.py", "package/alone.py"}


def test_a_file_that_cannot_be_parsed_is_itself(tmp_path):
    (tmp_path / "broken.py").write_text("def (")
    assert own_sources(tmp_path / "broken.py", tmp_path) == [tmp_path / "broken.py"]
