"""What the batch-size search and the learning-rate range test share: samples, a copy that trains, memory."""
