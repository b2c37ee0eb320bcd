"""Whole updates on a CUDA device that is imagined: `python -m tests.without_gpu`, for a torch without CUDA; needs g++.

It says what each kind of update does that a recording on a GPU could not bear. Exit status 1 if there is any such
thing, or if the mistakes that are planted are not found.
"""

import ctypes
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).with_name("device.cpp")
TORCH = Path(find_spec("torch").origin).parent


def imagine_device():
    """Load it, which must come before torch is imported: that asks for CUDA only once."""
    with TemporaryDirectory() as folder:
        library = f"{folder}/device.so"
        command = ["g++", "-std=c++20", "-shared", "-fPIC", SOURCE, "-o", library, f"-I{TORCH}/include"]
        command += [f"-L{TORCH}/lib", f"-Wl,-rpath,{TORCH}/lib", "-ltorch_cpu", "-lc10"]
        subprocess.run(command, check=True)
        return ctypes.CDLL(library)


def main():
    if not which("g++") or (TORCH / "lib" / "libtorch_cuda.so").exists():
        print("error: this needs g++ and a torch that was built without CUDA", file=sys.stderr)
        return 2
    device = imagine_device()
    from tests.without_gpu.updates import check_all  # imports torch

    return check_all(device)


if __name__ == "__main__":
    sys.exit(main())
