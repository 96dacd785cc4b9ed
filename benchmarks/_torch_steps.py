"""Steps of benchmarks in plain PyTorch, channels last, run by a torch of its own.

Not a benchmark by itself: a ``Worker`` starts it with the interpreter that has torch, writes
``{"steps": n}`` to it, and reads ``{"wall": s, "processor": s}``. It imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as f  # pyright: ignore[reportMissingImports]

CLASSES = 100
# The loss of a step, its optimizer, and how many parameters the student has.
Made = tuple[Callable[[], Any], Any, int]


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.short = None
        if stride > 1 or inputs != width:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Any) -> Any:
        out = f.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return f.relu(out + (x if self.short is None else self.short(x)))


class ResNet(nn.Module):
    """Of depth 6n + 2 on 32 pixels, with convolutions as shortcuts."""

    def __init__(self, depth: int, factor: int):
        super().__init__()
        stem = 16 if factor == 1 else 8 * factor
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        stages, inputs = [], stem
        for number in range(3):
            width = 16 * factor * 2**number
            blocks = []
            for index in range((depth - 2) // 6):
                blocks.append(Block(inputs, width, 2 if number and not index else 1))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x: Any) -> tuple[Any, Any, Any]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        pooled = x.mean((2, 3))
        return self.head(pooled), pooled, maps


class MLP(nn.Module):
    def __init__(self, inputs: int, width: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    def forward(self, x: Any) -> tuple[Any]:
        return (self.layers(x.flatten(1)),)


class Layer(nn.Module):
    """A pre-norm block of a vision transformer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        batch, length, width = x.shape
        q, k, v = (
            self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        out = f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.proj(out)
        return x + self.fc2(f.gelu(self.fc1(self.norm2(x))))


class MAE(nn.Module):
    """A masked autoencoder: visible patches through an encoder, all through a small decoder."""

    def __init__(self, width: int, depth: int, heads: int, side: int, patch: int):
        super().__init__()
        self.patch, length = patch, (side // patch) ** 2
        self.embed = nn.Linear(3 * patch * patch, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("place", torch.randn(1, length, width))
        self.blocks = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        own = 128
        self.into, self.hole = nn.Linear(width, own), nn.Parameter(torch.zeros(1, 1, own))
        self.register_buffer("where", torch.randn(1, length + 1, own))
        self.decoder = nn.ModuleList([Layer(own, 4)])
        self.last, self.pixels = nn.LayerNorm(own, eps=1e-6), nn.Linear(own, 3 * patch * patch)

    def patches(self, image: Any) -> Any:
        batch, _, side, _ = image.shape
        grid = side // self.patch
        cut = image.permute(0, 2, 3, 1).reshape(batch, grid, self.patch, grid, self.patch, 3)
        return cut.transpose(2, 3).reshape(batch, grid * grid, -1)

    def encode(self, patches: Any, keep: Any, until: int) -> tuple[Any, Any]:
        x = self.embed(patches) + self.place
        x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        tap = None
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == until:
                tap = x
                if not self.training:
                    return x, tap
        return self.norm(x), tap

    def decode(self, x: Any, keep: Any, length: int) -> Any:
        x = self.into(x)
        canvas = self.hole.expand(len(x), length, -1).clone()
        canvas = canvas.to(x.dtype).scatter(
            1, keep[..., None].expand(-1, -1, x.shape[-1]), x[:, 1:]
        )
        x = torch.cat([x[:, :1], canvas], 1) + self.where
        for block in self.decoder:
            x = block(x)
        return self.pixels(self.last(x))[:, 1:]


class Decoder(nn.Module):
    """A language model: RMS norms, rotary positions, gated units, a tied head; keys and values are
    shared by heads where there are fewer ``groups``."""

    def __init__(
        self,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        groups: int | None = None,
    ):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups or heads, width // heads
        self.embed = nn.Embedding(vocabulary, width)
        joined = (heads + 2 * self.groups) * self.size
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.RMSNorm(width, eps=1e-6),
                    "qkv": nn.Linear(width, joined, bias=False),
                    "out": nn.Linear(width, width, bias=False),
                    "norm2": nn.RMSNorm(width, eps=1e-6),
                    "gate": nn.Linear(width, hidden, bias=False),
                    "up": nn.Linear(width, hidden, bias=False),
                    "down": nn.Linear(hidden, width, bias=False),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)

    def hidden(self, tokens: Any) -> Any:
        """What the head reads."""
        x = self.embed(tokens)
        batch, length, width = x.shape
        half = self.size // 2
        angles = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(half) / half)[None]
        cos, sin = angles.cos(), angles.sin()

        def turned(x: Any) -> Any:
            a, b = x[..., :half], x[..., half:]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        for layer in self.layers:
            qkv = layer["qkv"](layer["norm1"](x)).view(batch, length, -1, self.size)
            q, k, v = qkv.transpose(1, 2).split((self.heads, self.groups, self.groups), 1)
            out = f.scaled_dot_product_attention(
                turned(q), turned(k), v, is_causal=True, enable_gqa=self.groups < self.heads
            )
            x = x + layer["out"](out.transpose(1, 2).reshape(batch, length, width))
            seen = layer["norm2"](x)
            x = x + layer["down"](f.silu(layer["gate"](seen)) * layer["up"](seen))
        return self.norm(x)

    def forward(self, tokens: Any) -> Any:
        return self.hidden(tokens) @ self.embed.weight.T


class ConvNet(nn.Module):
    """Blocks of a convolution, an instance norm, a rectifier and a mean over 2x2."""

    def __init__(self, width: int, depth: int, side: int, channels: int, classes: int):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for number in range(depth):
            self.convs.append(nn.Conv2d(width if number else channels, width, 3, padding=1))
            self.norms.append(nn.GroupNorm(width, width))
            side //= 2
        self.head = nn.Linear(width * side**2, classes)

    def forward(self, x: Any) -> Any:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = f.avg_pool2d(f.relu(norm(conv(x))), 2)
        return self.head(x.flatten(1))


def soft(student: Any, teacher: Any, temperature: float = 4.0) -> Any:
    ours = f.log_softmax(student / temperature, -1)
    theirs = f.log_softmax(teacher / temperature, -1)
    return temperature**2 * f.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def distances(x: Any) -> Any:
    square = x.square().sum(1)
    gaps = (square[:, None] + square[None] - 2 * x @ x.T).clamp(min=1e-12).sqrt()
    gaps = gaps * (1 - torch.eye(len(x)))
    return gaps / gaps[gaps > 0].mean()


def cosines(x: Any) -> Any:
    unit = f.normalize(x[None] - x[:, None], dim=2)
    return torch.bmm(unit, unit.transpose(1, 2))


def residual(settings: dict[str, Any]) -> Made:
    """KD and its relatives between residual networks."""
    kind, batch = settings["kind"], settings["batch"]
    teacher = ResNet(*settings["teacher"]).to(memory_format=torch.channels_last).eval()
    student = ResNet(*settings["student"]).to(memory_format=torch.channels_last).train()
    image = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    label, index = torch.randint(0, CLASSES, (batch,)), torch.randint(0, 50_000, (batch,))
    learned = [*student.parameters()]
    width = 64 * settings["student"][1], 64 * settings["teacher"][1]
    count = sum(p.numel() for p in learned)
    hint = nn.Conv2d(width[0] // 2, width[1] // 2, 1)
    hint = hint.to(memory_format=torch.channels_last)
    ours, theirs = nn.Linear(width[0], 128), nn.Linear(width[1], 128)
    if kind == "hint":
        learned += [*hint.parameters()]
    if kind == "crd":
        learned += [*ours.parameters(), *theirs.parameters()]
    tx = torch.optim.SGD(learned, 0.05, momentum=0.9, weight_decay=5e-4)
    cached = torch.randn(batch, CLASSES)
    banks = [f.normalize(torch.randn(50_000, 128), dim=1) for _ in range(2)]

    def contrast(embedding: Any, bank: Any, rows: Any) -> Any:
        scores = torch.einsum("bkd,bd->bk", bank[rows], embedding) / 0.07
        # Both constants of the noise estimate are given, as after the first batch.
        noise = rows.shape[1] - 1
        p = scores.exp() / 1e4
        first = torch.log(p[:, 0] / (p[:, 0] + noise / 50_000))
        rest = torch.log((noise / 50_000) / (p[:, 1:] + noise / 50_000)).sum(1)
        return -(first + rest).mean()

    def whole() -> Any:
        goal = None
        if kind != "cached":
            with torch.no_grad():
                goal, features, maps = teacher(image)
        out, pooled, own = student(image)
        loss = 0.1 * f.cross_entropy(out, label)
        loss = loss + 0.9 * soft(out, cached if goal is None else goal)
        if kind == "hint":
            loss = loss + 100 * f.mse_loss(hint(own[1]), maps[1])
        if kind == "rkd":
            with torch.no_grad():
                far, angle = distances(features), cosines(features)
            loss = loss + 25 * f.smooth_l1_loss(distances(pooled), far)
            loss = loss + 50 * f.smooth_l1_loss(cosines(pooled), angle)
        if kind == "crd":
            a, b = f.normalize(ours(pooled), dim=1), f.normalize(theirs(features), dim=1)
            rows = torch.randint(0, 50_000, (batch, 4097))
            rows[:, 0] = index
            loss = loss + 0.8 * (contrast(a, banks[1], rows) + contrast(b, banks[0], rows))
            with torch.no_grad():
                for bank, new in zip(banks, (a, b), strict=True):
                    bank[index] = f.normalize(0.5 * bank[index] + 0.5 * new, dim=1)
        return loss

    return whole, tx, count


def perceptron(settings: dict[str, Any]) -> Made:
    """Hinton's nets: logits and labels."""
    teacher, student = MLP(784, 1200, 10).eval(), MLP(784, 800, 10).train()
    image, label = torch.randn(settings["batch"], 784), torch.randint(0, 10, (settings["batch"],))
    tx = torch.optim.Adam(student.parameters(), 1e-3)

    def whole() -> Any:
        with torch.no_grad():
            goal = teacher(image)[0]
        out = student(image)[0]
        loss = 0.1 * f.cross_entropy(out, label) + 0.9 * soft(out, goal)
        return loss

    return whole, tx, sum(p.numel() for p in student.parameters())


def dmae(settings: dict[str, Any]) -> Made:
    """Pixels of hidden patches and projected features of the visible ones."""
    side, patch, batch = settings["side"], settings["patch"], settings["batch"]
    teacher = MAE(*settings["teacher"], side=side, patch=patch).eval()
    student = MAE(*settings["student"], side=side, patch=patch).train()
    project = nn.Linear(settings["student"][0], settings["teacher"][0])
    image, length = torch.randn(batch, 3, side, side), (side // patch) ** 2
    learned = [*student.parameters(), *project.parameters()]
    tx = torch.optim.AdamW(learned, 1e-3, betas=(0.9, 0.95), weight_decay=0.05)

    def whole() -> Any:
        keep = torch.rand(batch, length).argsort(1)[:, : length // 4]
        hidden = torch.ones(batch, length).scatter(1, keep, 0.0)
        with torch.no_grad():
            goal = teacher.encode(teacher.patches(image), keep, settings["taps"][1])[1]
        patches = student.patches(image)
        x, tap = student.encode(patches, keep, settings["taps"][0])
        out = student.decode(x, keep, length)
        pixels = ((out - patches).square().mean(-1) * hidden).sum() / hidden.sum()
        gap = f.normalize(project(tap), dim=-1) - f.normalize(goal, dim=-1)
        loss = pixels + 3 * gap.abs().mean()
        return loss

    return whole, tx, sum(p.numel() for p in student.parameters())


def decoder(settings: dict[str, Any]) -> Made:
    """Forward KL of every token, from whole logits or by Liger's loss from hidden states; from the
    tokens and weights of a file, if one is given."""
    vocabulary = settings["vocabulary"]
    teacher = Decoder(vocabulary, *settings["teacher"]).eval()
    student = Decoder(vocabulary, *settings["student"]).train()
    if "given" in settings:
        with np.load(settings["given"], allow_pickle=False) as archive:
            given = {name: torch.from_numpy(array) for name, array in archive.items()}
        tokens = given.pop("tokens").long()
        for name, net in (("teacher", teacher), ("student", student)):
            own = {k.removeprefix(f"{name}/"): v for k, v in given.items() if k.startswith(name)}
            net.load_state_dict(own)
    else:
        tokens = torch.randint(0, vocabulary, (settings["batch"], settings["length"]))
    if settings.get("bfloat16"):
        teacher = teacher.to(torch.bfloat16)  # it is only read
    tx = torch.optim.AdamW(student.parameters(), 1e-3)

    def whole() -> Any:
        with torch.no_grad():
            goal = f.log_softmax(teacher(tokens), -1)
        ours = f.log_softmax(student(tokens), -1)
        return f.kl_div(ours, goal, log_target=True, reduction="none").sum(-1).mean()

    if settings.get("liger"):
        from liger_kernel.chunked_loss import (  # pyright: ignore[reportMissingImports]
            LigerFusedLinearJSDLoss,
        )

        loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0)

        def whole() -> Any:
            with torch.no_grad():
                goal = teacher.hidden(tokens).flatten(0, 1)
            ours, heads = student.hidden(tokens).flatten(0, 1), (student.embed, teacher.embed)
            own, other = (head.weight.to(ours.dtype) for head in heads)
            return loss(ours, own, goal.to(ours.dtype), other, tokens.flatten(), None, None)

    return whole, tx, sum(p.numel() for p in student.parameters())


def unrolled(settings: dict[str, Any]) -> Made:
    """The gradient through some steps of training on a synthetic set, in images and rate."""
    classes, side = settings["classes"], settings["side"]
    net = ConvNet(settings["width"], settings["depth"], side, 1, classes)
    start = {name: p.detach() for name, p in net.named_parameters()}
    goal = {name: p + 0.02 * torch.randn_like(p) for name, p in start.items()}
    images = torch.randn(classes, 1, side, side, requires_grad=True)
    rate = torch.tensor(settings["rate"], requires_grad=True)
    labels = torch.arange(classes)
    # Neither is moved: every step is the first one.
    tx = torch.optim.SGD([images, rate], 0.0)
    apart = sum((start[name] - goal[name]).square().sum() for name in start)

    def whole() -> Any:
        weights = {name: p.clone().requires_grad_() for name, p in start.items()}
        for _ in range(settings["steps"]):
            out = torch.func.functional_call(net, weights, (images,))
            loss = f.cross_entropy(out, labels)
            slopes = torch.autograd.grad(loss, [*weights.values()], create_graph=True)
            moved = zip(weights.items(), slopes, strict=True)
            weights = {name: p - rate * slope for (name, p), slope in moved}
        return sum((weights[name] - goal[name]).square().sum() for name in start) / apart

    return whole, tx, sum(p.numel() for p in start.values())


class ViT(nn.Module):
    """A vision transformer with a class token."""

    def __init__(self, width: int, depth: int, heads: int, side: int, patch: int):
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 1000)

    def forward(self, image: Any) -> Any:
        x = self.embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def imagenet(settings: dict[str, Any]) -> Made:
    """KD at ImageNet's size: vision transformers, or torchvision's residual networks."""
    side = settings["side"]
    if "patch" in settings:
        teacher, student = (
            ViT(*settings[name], side=side, patch=settings["patch"])
            for name in ("teacher", "student")
        )
    else:
        import torchvision  # pyright: ignore[reportMissingImports]

        teacher, student = (
            getattr(torchvision.models, f"resnet{settings[name]}")()
            for name in ("teacher", "student")
        )
    teacher = teacher.to(memory_format=torch.channels_last).eval()
    student = student.to(memory_format=torch.channels_last).train()
    image = torch.randn(settings["batch"], 3, side, side).to(memory_format=torch.channels_last)
    tx = torch.optim.AdamW(student.parameters(), 1e-3)

    def whole() -> Any:
        with torch.no_grad():
            goal = teacher(image)
        return soft(student(image).float(), goal.float(), 1.0)

    return whole, tx, sum(p.numel() for p in student.parameters())


CASES = {
    "residual": residual,
    "perceptron": perceptron,
    "dmae": dmae,
    "decoder": decoder,
    "unrolled": unrolled,
    "imagenet": imagenet,
}


def main() -> None:
    settings = json.loads(sys.argv[1])
    device = settings.get("device", "cpu")
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    torch.set_default_device(device)
    torch.set_float32_matmul_precision("high")
    whole, tx, count = CASES[settings["case"]](settings)
    if settings.get("compile"):
        whole = torch.compile(whole)

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=settings.get("bfloat16", False)):
            loss = whole()
        tx.zero_grad(set_to_none=True)
        loss.backward()
        tx.step()
        return loss

    first = {"loss": step().item(), "parameters": count, "torch": torch.__version__}
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(json.loads(line)["steps"]):
            loss = step()
        loss.item()
        taken = time.perf_counter() - wall, time.process_time() - processor
        answer = {"wall": taken[0], "processor": taken[1]}
        if device == "cuda":
            answer["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
