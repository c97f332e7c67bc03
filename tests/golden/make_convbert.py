#!/usr/bin/env python3
"""Makes tests/golden/convbert.json: PyTorch's ConvBertLayer with random weights.

    make goldens                               or, in an environment with PyTorch,
    python3 tests/golden/make_convbert.py

Two rows of different lengths, padded to one. Of each the layer's output and, of the sum of the
outputs times random numbers, the gradients of the input and of all parameters.

ConvBertLayer convolves what stands at padding. Here each sequence goes through it alone, which is
what its states should be. This is also compared with the layer on the padded rows, with padding
zeroed before both convolutions and masked in attention as ConvBertModel does.
"""

import json
from pathlib import Path

import torch
from transformers import ConvBertConfig
from transformers.models.convbert.modeling_convbert import ConvBertLayer

WIDTH = 16
LENGTHS = [11, 4]
OUTPUT = Path(__file__).resolve().parent / "convbert.json"
# The file's names, in the order of the parameters, with those of transformers.
NAMES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.key_conv.depthwise": "attention.self.key_conv_attn_layer.depthwise.weight",
    "attention.key_conv.pointwise": "attention.self.key_conv_attn_layer.pointwise.weight",
    "attention.key_conv.bias": "attention.self.key_conv_attn_layer.bias",
    "attention.conv_kernel": "attention.self.conv_kernel_layer",
    "attention.conv_out": "attention.self.conv_out_layer",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "norm": "output.LayerNorm",
}


def parameters(layer):
    """Each parameter: its name here, and the tensor."""
    theirs = dict(layer.named_parameters())
    listed = []
    for ours, name in NAMES.items():
        if name in theirs:
            listed.append((ours, theirs.pop(name)))
        else:
            listed += [(f"{ours}.{part}", theirs.pop(f"{name}.{part}")) for part in ("weight", "bias")]
    assert not theirs, theirs.keys()
    return listed


def laid_out(name, tensor):
    """As it is kept here: matrices `[in, out]`, the depthwise convolution `[kernel, d]`."""
    if name.endswith("depthwise"):
        return tensor[:, 0, :].T
    if name.endswith("pointwise"):
        return tensor[:, :, 0].T
    if name.endswith("key_conv.bias"):
        return tensor[:, 0]
    return tensor.T if tensor.ndim == 2 else tensor


def numbers(tensor):
    return [float(f"{x:.9g}") for x in tensor.detach().flatten().tolist()]


def padded_output(layer, states, lengths):
    """The layer on padded rows, with what its convolutions read at padding zeroed."""
    mask = torch.arange(states.shape[1])[None] < torch.tensor(lengths)[:, None]
    hook = layer.attention.self.conv_out_layer.register_forward_hook(
        lambda _, __, output: output * mask[..., None]
    )
    additive = torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
    output = layer(states * mask[..., None], additive)
    hook.remove()
    return output


def main():
    torch.manual_seed(14)
    config = ConvBertConfig(
        hidden_size=WIDTH,
        num_attention_heads=4,
        head_ratio=2,
        conv_kernel_size=7,
        intermediate_size=WIDTH // 2,
    )
    layer = ConvBertLayer(config).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    length = max(LENGTHS)
    states = torch.randn(len(LENGTHS), length, WIDTH, requires_grad=True)
    cotangent = torch.randn(len(LENGTHS), length, WIDTH)
    alone = [layer(states[i : i + 1, :n])[0] for i, n in enumerate(LENGTHS)]
    output = torch.stack([torch.nn.functional.pad(y, (0, 0, 0, length - len(y))) for y in alone])
    (output * cotangent).sum().backward()
    together = padded_output(layer, states, LENGTHS)
    for i, n in enumerate(LENGTHS):
        difference = (together[i, :n] - alone[i]).abs().max().item()
        assert difference < 1e-5, difference
    arrays = {
        "states": states,
        "cotangent": cotangent,
        "output": output,
        "gradient of states": states.grad,
    }
    for name, parameter in parameters(layer):
        arrays[name] = laid_out(name, parameter)
        arrays[f"gradient of {name}"] = laid_out(name, parameter.grad)
    fields = [f'"width": {WIDTH}', f'"lengths": {json.dumps(LENGTHS)}']
    fields += [f"{json.dumps(name)}: {json.dumps(numbers(array))}" for name, array in arrays.items()]
    OUTPUT.write_text("{\n  " + ",\n  ".join(fields) + "\n}\n")


if __name__ == "__main__":
    main()
