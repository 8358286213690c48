"""The start of the device process: CUDA is started in a thread beside the imports, of which each takes seconds."""

from __future__ import annotations

import sys
import threading


def main(control: int, words: int) -> None:
    """Run the device process on the descriptors that the master gave it."""
    threading.Thread(target=_start_cuda, name="start", daemon=True).start()
    from .device_process import serve

    serve(control, words)


def _start_cuda() -> None:
    """Have the libraries of CUDA loaded, as the first convolution in a process does."""
    import torch

    if torch.cuda.is_available():
        pixels = torch.zeros((1, 8, 32, 32), device="cuda", dtype=torch.bfloat16)
        torch.nn.functional.conv2d(pixels, pixels.new_zeros((8, 8, 3, 3)), padding=1)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
