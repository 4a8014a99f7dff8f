"""CIFAR-10's network in PyTorch, layer by layer, as a peer in benchmarks: channels last, eager."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """Batch normalization and ReLU before each of a 1x1, a 3x3 (with the stride) and a 1x1 convolution; shortcut."""

    def __init__(self, channels: int, filters: int, stride: int, project: bool) -> None:
        super().__init__()
        narrow = filters // 4
        self.norms = nn.ModuleList(_norm(width) for width in (channels, narrow, narrow))
        self.convs = nn.ModuleList(
            [_conv(channels, narrow, 1), _conv(narrow, narrow, 3, stride), _conv(narrow, filters, 1)]
        )
        self.shortcut = _conv(channels, filters, 1, stride) if project else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = activated = functional.relu(self.norms[0](x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        residual = self.convs[0](residual)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            residual = conv(functional.relu(norm(residual)))
        return residual + shortcut


def build(depth: int, classes: int, stages: Sequence[int], filters: Sequence[int]) -> nn.Module:
    """Build the network of `ResNet.build` for CIFAR-10, with logits as output."""
    layers, channels = [_norm(depth), _conv(depth, filters[0], 3)], filters[0]
    for number, (modules, width) in enumerate(zip(stages, filters[1:], strict=True)):
        for module in range(modules):
            layers.append(Bottleneck(channels, width, 2 if number and not module else 1, project=not module))
            channels = width
    layers += [_norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def train_step(model: nn.Module, images, labels, reg: float) -> Callable[[], float]:
    """Return a step of SGD with momentum on `images`, NumPy (n, height, width, channels), and integer `labels`."""
    # L2 on kernels only, as in Keras: its gradient is 2 reg w, a weight decay of 2 reg.
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 2 * reg}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _conv(channels: int, filters: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=2e-5, momentum=0.1)
