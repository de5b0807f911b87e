"""Spaces by name, and what importing them costs."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import ConfigError
from search_spaces import SPACES, get_space


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_found_by_its_name_and_can_be_sent_to_a_worker(name: str) -> None:
    space = get_space(name)
    assert space.name == name
    assert pickle.loads(pickle.dumps(space)) == space


def test_an_unknown_space_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match="'resnet' is unknown; choose one of: unet"):
        get_space("resnet")


def test_importing_the_spaces_imports_neither_torch_nor_ray() -> None:
    code = "import search_spaces, sys; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
