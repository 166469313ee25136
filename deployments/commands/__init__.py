"""The operator's commands: they read and leave orders, never lead, never send, never ask for a proof."""
