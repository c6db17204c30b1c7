"""The commands of `langevin-ext`, one file each."""
