"""The training loss: cross entropy with label smoothing on both heads (sections 4 and 7)."""

import jax
import jax.numpy as jnp
import optax


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """q'(k) = (1 - epsilon) delta(k, y) + epsilon / K of section 7.

    Args:
      labels: Right classes, int32 [batch].
      num_classes: Number of classes K.
      smoothing: Epsilon, 0.1 in the paper.

    Returns:
      float32 [batch, num_classes], every row sums to 1.
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), smoothing)


def heads_loss(
    logits: jax.Array, endpoints: dict, targets: jax.Array, aux_weight: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross entropy of the main head plus `aux_weight` times that of the auxiliary head.

    Args:
      logits: Logits of the main head, float32 [batch, num_classes].
      endpoints: Endpoints of the network, with "aux_logits" if the auxiliary head ran.
      targets: Probabilities, float32 [batch, num_classes].
      aux_weight: Weight of the auxiliary head, 0.4 in the released code.

    Returns:
      The loss, and its parts "main_loss" and (with an auxiliary head) "aux_loss", unweighted.
      Weight decay is not part of it: the optimizer adds its gradient.
    """
    parts = {"main_loss": optax.softmax_cross_entropy(logits, targets).mean()}
    if "aux_logits" not in endpoints:
        return parts["main_loss"], parts
    parts["aux_loss"] = optax.softmax_cross_entropy(endpoints["aux_logits"], targets).mean()
    return parts["main_loss"] + aux_weight * parts["aux_loss"], parts
