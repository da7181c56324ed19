"""The noise of a release, and the event that each mechanism asks the accountant to compose."""

from __future__ import annotations

import math
import os

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

# Above 32,768 elements per operation torch goes parallel, which is slower here than one thread.
_HALF = 1 << 14
_ZEROS = bytes(8 * _HALF)


def _keystream() -> tuple[Cipher, bytearray]:
    cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16)))
    return cipher, bytearray(8 * _HALF + 15)


def gaussian_(out: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Add independent N(0, std²) noise to `out` in place and return it.

    With `generator` None the noise comes from AES-256 in counter mode under a key drawn from the
    operating system for this call alone, through the Box-Muller transform: nobody can guess or
    replay it. A radius takes 31 random bits and 31 more where the first are near zero, so the tail
    reaches past nine standard deviations. With a torch generator the noise is reproducible, and
    whoever knows the seed can subtract it.

    Attacks on the low-order bits of floating-point noise (Mironov 2012) are not addressed here:
    `DiscreteGaussian` addresses them.

    Parameters: `out` a floating-point tensor of any shape on any device; `std` at least 0, in the
    units of `out`.

    >>> x = gaussian_(torch.zeros(10_000), 2.0)
    >>> 1.8 < float(x.std()) < 2.2
    True
    """
    if not math.isfinite(std) or std < 0:
        raise ValueError(f"a noise standard deviation must be finite and at least 0, got {std!r}")
    if not out.is_floating_point():
        raise ValueError(f"noise needs a floating-point tensor, got {out.dtype}")
    if std == 0 or out.numel() == 0:
        return out
    if not out.is_contiguous():
        return out.add_(gaussian_(torch.zeros_like(out, memory_format=torch.contiguous_format),
                                  std, generator))  # fmt: skip
    flat = out.view(-1)
    if generator is not None:
        for start in range(0, flat.numel(), 2 * _HALF):
            part = flat[start : start + 2 * _HALF]
            block = torch.empty(part.shape, dtype=out.dtype, device=generator.device)
            part.add_(block.normal_(0.0, std, generator=generator).to(out.device))
        return out
    cipher, buffer = _keystream()
    encryptor = cipher.encryptor()
    words = torch.frombuffer(buffer, dtype=torch.int32, count=2 * _HALF)
    dtype = torch.float64 if out.dtype == torch.float64 else torch.float32
    for start in range(0, flat.numel(), 2 * _HALF):
        part = flat[start : start + 2 * _HALF]
        encryptor.update_into(_ZEROS, buffer)
        half = (part.numel() + 1) // 2
        bits = words[:half] & 0x7FFFFFFF
        u = bits.to(dtype).add_(0.5)
        low = (bits < 256).nonzero().flatten()
        if low.numel():
            extra = torch.frombuffer(bytearray(os.urandom(4 * low.numel())), dtype=torch.int32)
            u[low] = (bits[low] + ((extra & 0x7FFFFFFF) + 0.5) * 2.0**-31).to(dtype)
        radius = u.mul_(2.0**-31).log_().mul_(-2.0 * std * std).sqrt_()
        angle = words[_HALF : _HALF + half].to(dtype).mul_(math.pi * 2.0**-31)
        rest = part.numel() - half
        if part.device.type == "cpu" and part.dtype == dtype:
            part[:half].addcmul_(radius, torch.cos(angle))
            part[half:].addcmul_(radius[:rest], torch.sin(angle)[:rest])
        else:
            block = torch.cat([radius * torch.cos(angle), (radius * torch.sin(angle))[:rest]])
            part.add_(block.to(out.device, out.dtype))
    return out
