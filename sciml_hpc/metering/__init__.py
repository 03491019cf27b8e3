"""What a run cost: time, bytes, energy, communication, arithmetic, and on which system."""
