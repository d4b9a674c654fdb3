"""Makes torch-*.pth, PyTorch files of every kind that is read, and torch.safetensors with the tensors in them.

pip install torch==2.12.1 numpy==2.4.6 safetensors==0.8.0; python make_pth.py
"""
import argparse
import collections

import torch
from safetensors.torch import save_file


def tensors(new):
    """A state dict of every dtype and layout; those that only new containers have if new."""
    torch.manual_seed(1)
    state = collections.OrderedDict()
    state["f32"] = torch.randn(3, 4)
    state["parameter"] = torch.nn.Parameter(torch.randn(2, 3))
    state["attributes"] = torch.nn.Parameter(torch.randn(3))
    state["attributes"].note = "kept beside the parameter"
    state["f64"] = torch.randn(2, 2, dtype=torch.float64)
    state["f16"] = torch.randn(5).half()
    state["bf16"] = torch.randn(2, 3).bfloat16()
    state["i64"] = torch.tensor([[-(2**63), -1], [0, 2**63 - 1]])
    state["i32"] = torch.tensor([-(2**31), 7], dtype=torch.int32)
    state["i16"] = torch.tensor([-(2**15), 7], dtype=torch.int16)
    state["i8"] = torch.tensor([-128, 127], dtype=torch.int8)
    state["u8"] = torch.tensor([0, 255], dtype=torch.uint8)
    state["bool"] = torch.tensor([True, False, True])
    state["scalar"] = torch.tensor(0.07)
    state["empty"] = torch.zeros(0, 3)
    state["transposed"] = torch.randn(4, 3).t()
    state["permuted"] = torch.randn(2, 3, 4).permute(2, 0, 1).half()
    state["steps"] = torch.randn(20)[1::3]
    state["columns"] = torch.randn(4, 5)[:, 1:3]
    state["tail"] = torch.randn(9)[5:]
    state["expanded"] = torch.arange(4).expand(2, 1, 4)
    state["ones"] = torch.randn(3, 1, 2).transpose(0, 1)
    both = torch.randn(2, 4)
    state["shared.weight"], state["shared.bias"] = both[0], both[1]
    state["tied"] = state["f32"]
    if new:
        state["u16"] = torch.tensor([0, 65535], dtype=torch.uint16)
        state["u32"] = torch.tensor([[1, 2**32 - 1]], dtype=torch.uint32).t()
        state["u64"] = torch.tensor([3, 2**63 - 1], dtype=torch.uint64)[1:]
    return state


def checkpoint(state):
    """What a training program saves around the state dict."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    return {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "scaler": {"scale": 65536.0, "_growth_tracker": 2},
        "config": {"name": "größer", "nested": {"list": [1, [2.5, None], ()], "empty": {}, 7: True}},
        "odd": {
            "bytes": b"\x00\x7f\xff", "no bytes": b"", "frozen": frozenset([6]), "large": 2**80, "negative": -(2**63) - 1, "long": -(2**40), "set": {5},
            "size": torch.Size([2, 3]), "device": torch.device("cuda", 1), "cpu": torch.device("cpu"),
            "dtype": torch.bfloat16, "args": argparse.Namespace(lr=0.1, tags=["a"]), "one": (1,), "two": (1, "b"),
            "three": (1, 2, 3), "four": (1, 2, 3, 4), "numbers": [0, 255, 256, 65535, 65536, -1, -(2**31)],
        },
    }


def main():
    new = tensors(True)
    save_file({k: v.detach().clone().contiguous() for k, v in new.items()}, "torch.safetensors")
    torch.save(checkpoint(new), "torch-zip.pth")
    torch.save(checkpoint(new), "torch-zip-protocol5.pth", pickle_protocol=5)
    torch.save(new, "torch-bare.pth")
    old = tensors(False)
    torch.save(checkpoint(old), "torch-legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(old, "torch-legacy-protocol4.pth", _use_new_zipfile_serialization=False, pickle_protocol=4)
    torch.save({"state_dict": old}, "torch-zip-state-dict.pth")


main()
