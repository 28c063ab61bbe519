"""How trainers are started: on this machine, or through SLURM."""
