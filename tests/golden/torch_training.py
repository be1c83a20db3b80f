"""Training of the PyTorch reference: train mode, summed loss, Adam with L2, accumulation."""

import torch
from golden import torch_detector, torch_loss
from golden.resnet_cases import ResNetCase
from golden.scenes import scenes

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 5e-4  # Adam adds it to the gradient, for every parameter


class TorchTraining:
    """Steps through the batches of a case.

    Attributes:
      model: its gradients are those of the last batch, divided by the number of accumulated ones
        and added to what was accumulated before.
      output: of the last batch, [B, 10 + C, S, S].
    """

    def __init__(self, case: ResNetCase, dtype: torch.dtype):
        self.case, self.dtype = case, dtype
        self.model = torch_detector.detector(case, dtype).train()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        self.num_steps = 0

    def step(self) -> dict[str, float]:
        """One batch; the terms of its loss."""
        if self.num_steps % self.case.accumulation_steps == 0:
            self.optimizer.zero_grad()
        self.output, terms = forward(self.model, self.case, self.num_steps, self.dtype)
        (sum(terms.values()) / self.case.accumulation_steps).backward()
        self.num_steps += 1
        if self.num_steps % self.case.accumulation_steps == 0:
            self.optimizer.step()
        return {name: term.item() for name, term in terms.items()}


def forward(
    model: torch_detector.Detector, case: ResNetCase, index: int, dtype: torch.dtype
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output [B, 10 + C, S, S] and terms of the loss for a batch of the case."""
    name = case.batch_name(index)
    objects = scenes(name, case.batch_size, case.num_classes)
    target = torch_loss.target_grid(objects, case.grid_size, case.num_classes).to(dtype)
    raw = model(torch_detector.images(case, dtype, name))
    return raw, torch_loss.loss_terms(raw, target)
