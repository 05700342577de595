"""What the sources of a zoo can be adapted by, tried once for each network: the one way in which every verb asks."""

import logging
import traceback
from collections.abc import Callable, Sequence

import torch

from transferscope.errors import is_interrupt
from transferscope.networks.loading import Network, identity
from transferscope.networks.zoo import Source
from transferscope.protocols.cutting.places import PROTOCOLS, depths_of
from transferscope.protocols.cutting.possible import Possible, possible
from transferscope.runtime.failures import describe
from transferscope.runtime.store import Store, digest
from transferscope.runtime.version import __version__

logger = logging.getLogger("transferscope")

_VERSION = 3
"""Goes up when what is tried changes."""


def possible_protocols(
    source: Source,
    network: Network | Callable[[], Network],
    layers: Sequence[str],
    *,
    seed: int,
    trust_code: bool,
    store: Store,
) -> Possible:
    """Return for each protocol and depth why a source cannot be cut there for it, from the cache where it is known.

    Parameters
    ----------
    source : Source
        An entry of a zoo.
    network : Network or callable
        The network of it; or what returns it, called where the cache does not know the answer.
    layers : sequence of str
        What it can be cut after, from the input on.
    seed, trust_code
        As in `loading.load_network`.
    store : Store
        The cache.

    Returns
    -------
    dict of str to dict of int to str
        As `cutting.possible.possible`. Where trying itself fails, all that is trained counts as not possible, with the
        reason; that is not remembered.
    """
    key = digest(_VERSION, __version__, torch.__version__, identity(source, seed), list(layers))
    if (entry := store.get("protocols", key)) is not None:
        return {
            protocol: {int(depth): reason for depth, reason in reasons.items()}
            for protocol, reasons in entry[1].items()
        }
    try:
        loaded = network if isinstance(network, Network) else network()
        found = possible(loaded, layers, trust_code=trust_code)
    except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the source
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        logger.debug("%s", traceback.format_exc())
        reason = f"it could not be tried ({describe(source.name, error, 2)})"
        return {
            protocol: dict.fromkeys(depths_of(protocol, len(layers)), "" if protocol == "truncate" else reason)
            for protocol in PROTOCOLS
        }
    store.put(
        "protocols", key, {}, {protocol: {str(k): v for k, v in each.items()} for protocol, each in found.items()}
    )
    return found
