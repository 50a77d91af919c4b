"""POPGym's memory tasks (Morad et al. 2023) as batches on the device, with the original rules."""
