//! SCSI: commands, sense, and what a logical unit says of itself.
