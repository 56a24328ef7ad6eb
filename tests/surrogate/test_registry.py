import subprocess
import sys

import pytest

import surrogate


def test_importing_the_package_does_not_load_torch():
    code = "import sys, surrogate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(set(surrogate.__all__)))
def test_every_public_name_is_there(name):
    assert getattr(surrogate, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = surrogate.nonsense
