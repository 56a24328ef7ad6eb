import subprocess
import sys

import pytest

import sampler
from sampler import environment
from sampler.environments.hyper_grid import HyperGrid


def test_importing_sampler_is_cheap() -> None:
    code = "import sampler, sys; sys.exit('torch' in sys.modules or 'pymatgen' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_environment_stays_the_function_whatever_is_imported_first() -> None:
    code = "import sampler.gflownet; from sampler import environment; environment.__call__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_misspelt_kind_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'hyper_grid'"):
        environment("hypergrid", n_dims=2, length=3)


def test_a_class_of_the_user_is_a_kind() -> None:
    made = environment("sampler.environments.hyper_grid:HyperGrid", n_dims=2, length=3)
    assert isinstance(made, HyperGrid)


def test_a_plugin_that_does_not_import_is_named() -> None:
    with pytest.raises(ValueError, match=r"no_such_package.*cannot be imported"):
        environment("no_such_package.spaces:Mine")


def test_public_names() -> None:
    assert sampler.GFlowNet.__name__ == "GFlowNet"
    assert sampler.Random.__name__ == "Random"
    with pytest.raises(AttributeError):
        _ = sampler.Nothing
