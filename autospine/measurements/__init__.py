"""What a label map says about a spine in numbers: vertebrae, discs, canal, angles and alignment."""
