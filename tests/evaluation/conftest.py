"""Networks that are trained once for all tests of measuring."""

import pytest
import torch
from fake_split import FakeSplit

from anastyle import FEATURES
from anastyle.evaluation.judge import Judge


@pytest.fixture(scope="session")
def train() -> FakeSplit:
    return FakeSplit(96, seed=0)


@pytest.fixture(scope="session")
def test() -> FakeSplit:
    return FakeSplit(80, seed=1)


@pytest.fixture(scope="session")
def judge(train: FakeSplit) -> Judge:
    torch.set_num_threads(1)
    return Judge.train(train, seed=0, steps=60, batch_size=32)


@pytest.fixture(scope="session")
def features(train: FakeSplit) -> dict:
    domain, highfreq = FEATURES.get("domain"), FEATURES.get("highfreq")
    network = domain(domain.Config(width=8, steps=30, batch_size=32), classes=2)
    network.fit(train, seed=0)
    random_conv = FEATURES.get("random_conv")
    return {
        "domain": network,
        "highfreq": highfreq(highfreq.Config(rings=4)),
        "random_conv": random_conv(random_conv.Config()),
    }
