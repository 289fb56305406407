"""Called by test_policy_runs.py on two processes: a whole run, then the same elsewhere, where one process dies."""

from __future__ import annotations

import copy
import os
import signal
import sys

from llm.commands.shell import one_sentence_errors
from llm.policy import trainer as policy_trainer
from llm.policy.config import PolicyConfig
from llm.policy.run import train_policy
from llm.policy.update import SurrogateUpdate
from llm.training.settings import parse_train

LAST_STEP = 2  # counted from 0


class Dying(SurrogateUpdate):
    """Process 1 is gone in the first update of a step, before it has given any gradients."""

    def minibatch(self, rollout, rows):
        if rollout.step == LAST_STEP and self.accelerator.process_index == 1:
            sys.stdout.write(f"dying within step {rollout.step + 1}\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().minibatch(rollout, rows)


def train(argv):
    """Train whole, then broken."""
    config, arguments = parse_train(PolicyConfig, argv[1:])
    undisturbed = copy.copy(arguments)  # made anew, they would start the process group anew
    undisturbed.output_dir = argv[0]
    train_policy(config, undisturbed)
    policy_trainer.SurrogateUpdate = Dying
    train_policy(config, arguments)
    return 0


def main(argv: list[str]) -> int:
    return one_sentence_errors(train)(argv)
