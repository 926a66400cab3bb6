import makers
import pytest
import torch
from torch import nn

from autospine.network.tokenwise import linear
from trainers.cast_parameters import cast_at_once


def test_copies_give_the_gradients_of_parameters_cast_by_the_layers():
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(2, 2)])
    parameters = [(layer, name) for layer in layers for name in ("weight", "bias")]
    x = torch.randn(3, 6).bfloat16()

    def gradients() -> list[torch.Tensor | None]:
        for parameter in kept:
            parameter.grad = None
        y = x
        for layer in layers[:2]:
            y = linear(y, layer.weight, layer.bias).relu()
        y.float().square().sum().backward()
        return [p.grad for p in kept]

    kept = list(layers.parameters())
    expected = gradients()
    with cast_at_once(parameters, torch.bfloat16):
        assert layers[0].weight.dtype == torch.bfloat16
        found = gradients()
    assert all(p is original for p, original in zip(layers.parameters(), kept, strict=True))
    assert found[-2:] == expected[-2:] == [None, None], "parameters that are not used have no gradient"
    for one, other in zip(found[:-2], expected[:-2], strict=True):
        assert one is not None and one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_parameters_come_back_after_an_error():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    try:
        with cast_at_once([(layer, "weight")], torch.bfloat16):
            raise RuntimeError("a step that fails")
    except RuntimeError:
        pass
    assert layer.weight is weight


def test_most_parameters_of_the_swin_unetr_are_cast_at_once():
    network = makers.network_plan().build(1, 3, spacing_mm=(1.0, 1.0, 1.0), patch_size=(16, 16, 16))
    image = torch.randn(1, 1, 16, 16, 16)
    network.compute_dtype = torch.bfloat16
    expected = network(image)
    with cast_at_once(network.parameters_of_maps(), torch.bfloat16):
        found = network(image)
        # Kernels of fusions, of composed convolutions and tables of biases are added up in float32 first.
        assert all(p.dtype == torch.float32 for n, p in network.named_parameters() if "table" in n)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert len(network.parameters_of_maps()) > 0.8 * len(list(network.parameters()))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler hides by itself
def test_a_network_is_compiled_once_for_the_copies_of_all_steps():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    parameters = [(network[i], name) for i in (0, 2) for name in ("weight", "bias")]
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(network, backend=backend)
    for step in range(3):
        x = torch.randn(3, 6).bfloat16()
        gradients = []
        for call in (compiled, network):
            with cast_at_once(parameters, torch.bfloat16):
                call(x).float().square().sum().backward()
            gradients.append([p.grad.clone() for p in network.parameters()])
            network.zero_grad()
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * (step + 1))
    assert len(graphs) == 1
