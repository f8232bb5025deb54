"""What a run will need before it is started: memory, floating-point operations, time, disk; torch-free."""
