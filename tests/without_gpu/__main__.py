"""Whole updates on a CUDA device that is imagined: `python -m tests.without_gpu`, for a torch without CUDA; needs g++.

It says what each kind of update does that a recording on a GPU could not bear. Exit status 1 if there is any such
thing, or if the mistakes that are planted are not found.
"""

import ctypes
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).with_name("device.cpp")


def imagine_device():
    """Load it, which must come before torch is imported: that asks for CUDA only once."""
    torch = Path(find_spec("torch").origin).parent
    with TemporaryDirectory() as folder:
        library = f"{folder}/device.so"
        command = ["g++", "-std=c++20", "-shared", "-fPIC", SOURCE, "-o", library, f"-I{torch}/include"]
        command += [f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", "-ltorch_cpu", "-lc10"]
        subprocess.run(command, check=True)
        return ctypes.CDLL(library)


def main():
    device = imagine_device()
    from tests.without_gpu.updates import check_all  # imports torch

    return check_all(device)


if __name__ == "__main__":
    sys.exit(main())
