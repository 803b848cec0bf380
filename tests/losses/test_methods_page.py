import runpy
from pathlib import Path


def test_the_methods_page_is_what_the_docstrings_and_yamls_say():
    root = Path(__file__).parents[2]
    page = runpy.run_path(str(root / "scripts" / "make_methods_page.py"))["page"]
    assert (root / "docs" / "methods.md").read_text() == page(), "run python scripts/make_methods_page.py"
