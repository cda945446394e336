//! What was seen of peers' conduct, kept over a restart.

use std::fs;

use hypernet_core::codec::{self, Format as _};
use hypernet_core::node::Standings;

use crate::config::Home;
use crate::failure::Failure;
use crate::files;

/// What the last run has written down. Where that is missing or cannot be read, everybody begins anew: it is of use, and
/// nothing depends on it.
pub(crate) fn load(home: &Home) -> Option<Standings> {
    let path = home.standings();
    let len = fs::metadata(&path).ok()?.len();
    let read = || match len <= Standings::MAX as u64 {
        true => fs::read(&path).map_err(|error| error.to_string()),
        false => Err(format!("{len} bytes, at most {} are allowed", Standings::MAX)),
    };
    match read().and_then(|bytes| codec::decode(&bytes).map_err(|error| error.to_string())) {
        Ok(standings) => Some(standings),
        Err(error) => {
            tracing::warn!(%error, "what was seen of peers before cannot be read, and begins anew");
            None
        }
    }
}

/// Writes it down for the next one. Blocks.
pub(crate) fn save(home: &Home, standings: &Standings) -> Result<(), Failure> {
    files::write_secret(&home.standings(), &codec::encode(standings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_there_at_the_next_start_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().into());
        assert_eq!(load(&home), None);
        let standings = hypernet_format::values::standings();
        save(&home, &standings).unwrap();
        assert_eq!(load(&home), Some(standings));
        fs::write(home.standings(), b"what is this").unwrap();
        assert_eq!(load(&home), None);
        fs::File::create(home.standings()).unwrap().set_len(Standings::MAX as u64 + 1).unwrap();
        assert_eq!(load(&home), None);
    }
}
