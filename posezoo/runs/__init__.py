"""What long commands share: parts of the work, one writer, where parts meet, stopping cleanly."""
