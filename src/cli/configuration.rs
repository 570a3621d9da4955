//! The configuration file, for the commands that look into it.

use std::path::Path;

use srp_configuration::{Configuration, DEFAULT_PATH, ReadError};

use super::failure::Failure;
use crate::rpc::protocol::ErrorKind;

/// What the file says; one that was named must be there.
pub(super) fn read(named: Option<&Path>) -> Result<Configuration, Failure> {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    let read = Configuration::read(path).map_err(|error| {
        let kind = match error {
            ReadError::Io { .. } => ErrorKind::Host,
            _ => ErrorKind::Usage,
        };
        Failure::new(kind, error.to_string())
    })?;
    match (read, named) {
        (None, Some(path)) => Err(Failure::new(
            ErrorKind::Usage,
            format!("there is no configuration file {}", path.display()),
        )),
        (read, _) => Ok(read.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;

    #[test]
    fn files() {
        let scratch = Scratch::new();
        let path = scratch.path("config.toml");
        let missing = read(Some(&path)).unwrap_err().text();
        assert!(missing.contains("there is no configuration file /"), "{missing}");
        std::fs::write(&path, "[discovery]\nwatch = true\n").unwrap();
        assert!(read(Some(&path)).unwrap().discovery.watch);
        std::fs::write(&path, "[discovery]\nwatch = maybe\n").unwrap();
        let broken = read(Some(&path)).unwrap_err().text();
        assert!(broken.contains("config.toml, line 2: "), "{broken}");
    }
}
