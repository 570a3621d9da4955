"""Two guests on one virtual wire: a target and an initiator."""
