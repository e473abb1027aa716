"""Several devices and several processes: meshes, shardings, agreement, preemption."""
