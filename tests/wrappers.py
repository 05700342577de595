"""What is put around a network: for several GPUs or processes, for averaged weights, and by torch.compile."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

WRAPPERS = {
    "parallel": nn.DataParallel,
    "distributed": nn.parallel.DistributedDataParallel,  # needs the fixture `one_process`
    "averaged": AveragedModel,
    "compiled": lambda net: torch.compile(net, backend="eager"),
}
