"""Makes reference.safetensors: every dtype this package reads, written by the safetensors package for Python.

pip install safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0; python make_reference.py
"""
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

f16_bits = np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xC000, 0x7BFF, 0x7C00, 0xFC00, 0x7E01], np.uint16)
bf16_bits = np.array([0x0000, 0x8000, 0x0001, 0x3F80, 0xC0A0, 0x7F7F, 0x7F80, 0xFF80, 0x7FC1], np.uint16)
f32_bits = np.array([0x00000000, 0x80000000, 0x00000001, 0x3FC00000, 0x7F7FFFFF, 0x7F800000], np.uint32)
save_file(
    {
        "f64": np.array([[1.5, -2.25], [1e-300, np.inf]]),
        "f32": f32_bits.view(np.float32).reshape(2, 3),
        "f16": f16_bits.view(np.float16),
        "bf16": bf16_bits.view(ml_dtypes.bfloat16),
        "i64": np.array([-(2**63), -1, 0, 2**63 - 1], np.int64),
        "i32": np.array([-(2**31), 2**31 - 1], np.int32),
        "i16": np.array([-(2**15), 2**15 - 1], np.int16),
        "i8": np.array([-128, 127], np.int8),
        "u64": np.array([2**63 - 1], np.uint64),
        "u32": np.array([2**32 - 1], np.uint32),
        "u16": np.array([2**16 - 1], np.uint16),
        "u8": np.array([0, 255], np.uint8),
        "bool": np.array([True, False, True]),
        "Qformer.bert.scalar": np.array(0.07, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    },
    "reference.safetensors",
    metadata={"format": "pt"},
)
