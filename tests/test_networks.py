"""Layer tables against the totals that their publications and model zoos state."""

from __future__ import annotations

import pytest

from convkit import networks

# Trainable parameters and multiply-adds of one image (10^9, as published: rounded), without auxiliary classifiers.
PUBLISHED = {
    "vgg11": (132_863_336, 7.61),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.63),
    "alexnet": (61_100_840, 0.71),
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet18_cifar": (11_173_962, 0.56),
    "googlenet": (6_998_552, 1.58),
    "inception_v3": (23_834_568, 5.71),
    "densenet121": (7_978_856, 2.83),
    "mobilenet_v1": (4_231_976, 0.57),
    "mobilenet_v2": (3_504_872, 0.30),
    "autoencoder": (2_561, 0.00),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_the_published_ones(name: str) -> None:
    network = networks.get(name)
    parameters, multiply_adds = PUBLISHED[name]
    assert network.parameters == parameters
    assert round(network.multiply_adds / 1e9, 2) == multiply_adds


@pytest.mark.parametrize("name", networks.names())
def test_every_layer_is_a_possible_convolution(name: str) -> None:
    network = networks.get(name)
    assert network.name == name
    assert network.layers[0].c == network.image[0]
    assert len({layer.name for layer in network.layers}) == len(network.layers)
    for layer in network.layers:
        assert layer.oh > 0
        assert layer.ow > 0
        assert layer.c % layer.groups == 0
        assert layer.o % layer.groups == 0


@pytest.mark.parametrize("name", networks.names())
def test_unique_keeps_the_totals(name: str) -> None:
    network = networks.get(name)
    unique = network.unique()
    assert sum(layer.count for layer in unique) == len(network.layers)
    assert sum(layer.multiply_adds * layer.count for layer in unique) == sum(
        layer.multiply_adds for layer in network.layers
    )
    assert len({layer.shape for layer in unique}) == len(unique)


def test_known_shapes() -> None:
    assert [layer.c for layer in networks.get("vgg19").layers][:3] == [3, 64, 64]
    assert {(layer.kh, layer.kw) for layer in networks.get("inception_v3").layers} >= {(1, 7), (7, 1), (1, 3), (3, 1)}
    mnist = networks.get("mnist_cnn").layers
    assert [(layer.o, layer.kh, layer.h, layer.oh) for layer in mnist] == [(30, 5, 28, 24), (15, 3, 12, 10)]
    decode = networks.get("autoencoder").layers[2]
    assert (decode.transposed, decode.oh, decode.h) == (True, 7, 14)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="resnet50"):
        networks.get("resnet51")
