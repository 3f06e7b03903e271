"""Images per second of training a GradResNet in eager PyTorch, to hold `gradresnet-train` against.

    python tests/train_reference.py trainer/configs/cifar10.toml --steps 40

The network, the batches, both terms of the loss, the optimiser and the average of the weights are those of
the config, and its precision float32 unless --bfloat16 is given; the images are random, since only their number counts. Needs torch. Not part of `./test`.
"""

import argparse
import statistics
import time
import tomllib

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """r + norm(conv(gelu(conv(x)))), r = x or norm(conv1x1(x)) where the shape changes."""

    def __init__(self, inputs, outputs, group_size):
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm = Norm(outputs, group_size)
        self.shortcut = nn.Identity()
        if stride == 2:
            conv = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
            self.shortcut = nn.Sequential(conv, Norm(outputs, group_size))

    def forward(self, x):
        return self.shortcut(x) + self.norm(self.conv2(F.gelu(self.conv1(x))))


class Norm(nn.Module):
    """Group normalisation with a gain and no bias."""

    def __init__(self, channels, group_size):
        super().__init__()
        self.groups = channels // group_size
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return F.group_norm(x, self.groups, self.weight)


class GradResNet(nn.Module):
    """The `residual`, `group`, `gelu` form with side connections from the stem, without biases."""

    def __init__(self, a, classes):
        super().__init__()
        form = {k: a[k] for k in ("stem", "block", "norm", "side_connections", "activation", "biases")}
        known = ("cifar", "residual", "group", "stem", "gelu", False)
        if tuple(form.values()) != known:
            raise SystemExit(f"only {known} is written out here, and the config has {form}")
        self.centre, self.scale = a["centre"], a["scale"]
        widths = [a["width"] * 2**i for i in range(len(a["blocks"]))]
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.stages = nn.ModuleList()
        for stage, count in enumerate(a["blocks"]):
            inputs = [widths[max(stage - 1, 0)]] + [widths[stage]] * (count - 1)
            self.stages.append(nn.Sequential(*(Block(i, widths[stage], a["group_size"]) for i in inputs)))
        sides = [widths[0], *widths[:-1]]
        self.sides = nn.ModuleList(nn.Linear(w, w // 2, bias=False) for w in sides)
        features = widths[-1] + sum(w // 2 for w in sides)
        self.head = nn.Linear(features, classes, bias=False)
        self.energy = nn.Parameter(torch.randn(features) * features**-0.5)

    def forward(self, image):
        x = F.gelu(self.stem((image - self.centre) * self.scale))
        features = []
        for side, stage in zip(self.sides, self.stages):
            features.append(side(x.mean((2, 3))))
            x = stage(x)
        features = torch.cat([x.mean((2, 3)), *reversed(features)], 1)
        pixels = image.shape[2] * image.shape[3]
        return -0.5 * pixels * (features @ self.energy) ** 2, self.head(features)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024)."""

    def __init__(self, params, lr, momentum, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p].setdefault("momentum", torch.zeros_like(p))
                state.lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(state, group["momentum"]).reshape(p.shape[0], -1)
                rows, columns = x.shape
                x = x.T if rows > columns else x
                x = x / (x.norm() + 1e-7)
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                x = x.T if rows > columns else x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(x.reshape(p.shape), alpha=group["lr"] * max(1, rows / columns) ** 0.5)


def sample(images, labels, objective):
    """Random flips, and noise at σ = (√min + u(√max − √min))²."""
    index = torch.randint(len(images), (objective["batch"],))
    flip = torch.rand(len(index), 1, 1, 1) < 0.5
    clean = images[index].float() / 255
    clean = torch.where(flip, clean.flip(3), clean)
    low, high = (s**0.5 for s in objective["sigma"])
    sigma = ((low + torch.rand(len(index), 1, 1, 1) * (high - low)) ** 2) / 255
    return clean, labels[index], sigma, torch.randn_like(clean)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config of gradresnet-train with both objectives")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bfloat16", action="store_true", help="autocast")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(args.config, "rb") as file:
        config = tomllib.load(file)
    classes = 10
    net = GradResNet(config["architecture"]["gradresnet"], classes).to(args.device)
    form = torch.channels_last if args.channels_last else torch.contiguous_format
    net = net.to(memory_format=form)
    average = [p.detach().clone() for p in net.parameters()]
    rules = config["optimizer"]
    kernels = [p for p in net.parameters() if p.dim() == 4 and "muon" in rules]
    rest = [p for p in net.parameters() if all(p is not k for k in kernels)]
    adamw = rules["adamw"]
    optimizers = [torch.optim.AdamW(rest, adamw["learning_rate"], weight_decay=adamw.get("weight_decay", 0.0))]
    if kernels:
        muon = rules["muon"]
        decay = muon.get("weight_decay", 0.0)
        optimizers.append(Muon(kernels, muon["learning_rate"], muon["momentum"], decay))
    denoising, classification = config["denoising"], config["classification"]
    images = torch.randint(256, (1000, 3, denoising["size"], denoising["size"]), dtype=torch.uint8)
    labels = torch.randint(classes, (1000,))

    def batch(objective):
        tensors = [t.to(args.device) for t in sample(images, labels, objective)]
        return [t.to(memory_format=form) if t.dim() == 4 else t for t in tensors]

    def step():
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bfloat16):
            clean, _, sigma, noise = batch(denoising)
            noisy = (clean + sigma * noise).requires_grad_()
            (score,) = torch.autograd.grad(net(noisy)[0].sum(), noisy, create_graph=True)
            loss = denoising.get("weight", 1.0) * (sigma * score + noise).square().mean()
            clean, target, sigma, noise = batch(classification)
            loss = loss + F.cross_entropy(net(clean + sigma * noise)[1], target)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        if "clip" in rules:
            nn.utils.clip_grad_norm_(net.parameters(), rules["clip"])
        for optimizer in optimizers:
            optimizer.step()
        if "average" in rules:
            torch._foreach_lerp_(average, [p.detach() for p in net.parameters()], 1 - rules["average"])
        return loss.item()

    count = denoising["batch"] + classification["batch"]
    clocks = {"second": time.perf_counter, "CPU second": time.process_time}
    rates = {name: [] for name in clocks}
    for _ in range(args.steps):
        start = {name: clock() for name, clock in clocks.items()}
        step()
        for name, clock in clocks.items():
            rates[name].append(count / (clock() - start[name]))
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {torch.get_num_threads()} threads")
    for name, rate in rates.items():
        rate = rate[len(rate) // 4 :]  # Caches are filled in the first quarter.
        print(f"{statistics.median(rate):.1f} images per {name} (median of {len(rate)} steps)")


if __name__ == "__main__":
    main()
