"""The training loss: cross entropy with label smoothing on both heads (sections 4 and 7)."""

import jax
import jax.numpy as jnp
import optax


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """q'(k) = (1 - epsilon) delta(k, y) + epsilon / K of section 7.

    Args:
      labels: int32 [batch].
      num_classes: K.
      smoothing: epsilon, 0.1 in the paper.

    Returns:
      float32 [batch, num_classes], every row sums to 1.
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), smoothing)


def heads_loss(
    logits: jax.Array, endpoints: dict, targets: jax.Array, aux_weight: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross entropy of the main head plus `aux_weight` times that of the side head.

    Args:
      logits: float32 [batch, num_classes].
      endpoints: of the model; its "aux_logits", if there, are the side head's.
      targets: probabilities, [batch, num_classes].
      aux_weight: 0.4 in the released code.

    Returns:
      The loss, and its parts "main_loss" and (with a side head) "aux_loss", unweighted. Weight
      decay is not in it: the optimizer adds its gradient.
    """
    parts = {"main_loss": optax.softmax_cross_entropy(logits, targets).mean()}
    if "aux_logits" not in endpoints:
        return parts["main_loss"], parts
    parts["aux_loss"] = optax.softmax_cross_entropy(endpoints["aux_logits"], targets).mean()
    return parts["main_loss"] + aux_weight * parts["aux_loss"], parts
