"""The mark on networks whose classifier nobody has trained."""

import copy

from torch import nn

from transferscope.runtime.trained import mark_untrained, untrained


def test_a_network_is_trained_until_it_is_marked():
    net = nn.Linear(2, 2)
    assert untrained(net) == ""
    mark_untrained(net, "drawn at random")
    assert untrained(net) == untrained(copy.deepcopy(net)) == "drawn at random"
    assert list(net.state_dict()) == ["weight", "bias"]
