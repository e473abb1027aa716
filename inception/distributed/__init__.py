"""Several devices and several processes: meshes, shardings, coordination, preemption."""
