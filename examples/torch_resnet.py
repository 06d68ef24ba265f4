"""A ResNet in PyTorch: `make torch-env`, then .venv-torch/bin/python examples/torch_resnet.py

With --remove 3 also without the three blocks that it needs least, smaller and faster for good.
"""

import argparse

try:
    import torch
    from torch import nn
except ModuleNotFoundError:
    raise SystemExit(__doc__) from None

import cbundles
from cbundles import data


class Block(nn.Module):
    def __init__(self, filters):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(filters, filters, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm2d(filters) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        h += x
        return self.relu(h)


class ResNet(nn.Module):
    def __init__(self, blocks, filters):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, filters, 7, stride=4, padding=3), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(filters) for _ in range(blocks)))
        self.head = nn.Linear(filters, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def load_images(part="train"):
    digits = data.load("mnist_mini")
    images = torch.tensor(getattr(digits, f"{part}_images")).permute(0, 3, 1, 2) / 255
    return images, torch.tensor(getattr(digits, f"{part}_labels")).long()


def build(steps=120):
    torch.manual_seed(0)
    images, labels = load_images()
    model = ResNet(6, 16)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for batch in torch.arange(steps * 64).reshape(steps, 64) % len(images):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--remove", type=int, default=0, metavar="BLOCKS", choices=range(7))
    count = parser.parse_args().remove
    model, (images, labels) = build(), load_images()
    audit = cbundles.audit(model, images[:2048], labels[:2048], lesion=count > 0)
    print(audit)
    audit.plot("torch_resnet.png")
    if count:
        # Chosen on images of training, judged on others.
        least = audit.lesions.curves["greedy"].order[:count]
        tests, classes = load_images("test")
        removed = cbundles.remove(
            model, least, inputs=tests, labels=classes, recalibrate=images[:2048]
        )
        print(f"\n{removed}")
        removed.export("torch_resnet.pt2")
