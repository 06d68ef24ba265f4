"""A training loop in PyTorch with a monitor, which watches all layers while the network trains.

make torch-env, then .venv-torch/bin/python examples/torch_monitor.py, which writes
runs/monitor/events.jsonl; with --tensorboard also event files: pip install 'cbundles[tensorboard]'
"""

import sys

try:
    import torch
    from torch import nn
except ModuleNotFoundError:
    raise SystemExit(__doc__) from None

import cbundles
from cbundles import data

LEARNING_RATE, BATCH_SIZE, STEPS = 1e-3, 64, 600


def perceptron():
    layers = [nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU()]
    for _ in range(19):
        layers += [nn.Linear(32, 32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def train(steps=STEPS, tensorboard=False):
    torch.manual_seed(0)
    digits = data.load("mnist_mini")
    images = torch.tensor(digits.train_images).permute(0, 3, 1, 2) / 255
    labels = torch.tensor(digits.train_labels).long()
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    monitor = cbundles.Monitor(model, images, labels, tensorboard=tensorboard)
    for step in range(steps + 1):
        monitor(step)
        batch = (torch.arange(BATCH_SIZE) + step * BATCH_SIZE) % len(images)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    return monitor


if __name__ == "__main__":
    print(train(tensorboard="--tensorboard" in sys.argv[1:]).last.audit)
