"""The notebooks among the examples: each runs to its end, warns of nothing and draws; none is kept with outputs."""

import asyncio
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from transferscope.protocols.training.recipe import Recipe
from transferscope.verbs.demo import make

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
DRAWS = ("ts.plot.", "plt.subplots")
SHORTER = {"epochs=10": "epochs=2", "min_steps=40": "min_steps=4", "in range(10)": "in range(2)"}
"""What the notebooks train for, and for how long they do here."""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Each notebook by its name, executed two at a time in one folder with a demo that was trained for less.

    What went wrong with a notebook stands in its place.
    """
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        for name, count in {
            "PER_CLASS": 24, "_PER_LETTER": 10, "_PER_GRATING": 10, "_RECIPE": Recipe(epochs=1),
        }.items():  # fmt: skip
            patch.setattr(make, name, count)
        make.make_demo(folder / "transferscope-demo", progress=False, say=str)
    environment = {
        **os.environ,
        "TRANSFERSCOPE_HOME": str(folder / "cache"),
        "IPYTHONDIR": str(folder / "ipython"),  # what a user has set up for all notebooks stays out
        "OMP_NUM_THREADS": "1",  # kernels that each take all cores wait for each other
    }
    environment.pop("MPLBACKEND", None)

    async def execute(path, free):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            for said, instead in SHORTER.items():
                cell.source = cell.source.replace(said, instead)
        client = NotebookClient(notebook, kernel_name="python3", timeout=240, resources={"metadata": {"path": folder}})
        async with free:
            await client.async_execute(env=environment)
        return notebook

    async def execute_all():
        free = asyncio.Semaphore(2)
        return await asyncio.gather(*(execute(path, free) for path in NOTEBOOKS), return_exceptions=True)

    return dict(zip([path.name for path in NOTEBOOKS], asyncio.run(execute_all()), strict=True))


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_notebooks_run_without_a_warning_and_draw(executed, name):
    notebook = executed[name]
    if isinstance(notebook, Exception):
        raise notebook
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = [out.text for cell in cells for out in cell.outputs if out.output_type == "stream" and out.name == "stderr"]
    assert said == []
    drawing = {cell.id for cell in cells if any(call in cell.source for call in DRAWS)}
    drawn = {cell.id for cell in cells if any("image/png" in out.get("data", {}) for out in cell.outputs)}
    assert drawing - drawn == set()
    assert len(drawing) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(not cell.metadata for cell in notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    # Names of our own: editors that draw random ones would change the file whenever it is saved.
    assert all(cell.id.replace("-", "").isalpha() for cell in notebook.cells)
    assert "of your own" in notebook.cells[0].source


def test_what_is_trained_for_less_here_is_what_the_notebooks_train():
    text = " ".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    assert {said: said in text for said in SHORTER} == dict.fromkeys(SHORTER, True)
    assert not set(re.findall(r"epochs=\d+|min_steps=\d+", text)) - set(SHORTER)


def test_there_are_five_notebooks():
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_", "05_"]
