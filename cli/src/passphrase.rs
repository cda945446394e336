//! Asking for the passphrase of a keystore, and telling from its file whether it has one.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use hypernet_sdk::secret::SECRET_MAX;
use hypernet_sdk::{ErrorCode, SecretText};
use zeroize::Zeroizing;

use crate::error::Failure;

/// The first lines of an age file that a passphrase opens.
const SCRYPT_HEADER: &[u8] = b"age-encryption.org/v1\n-> scrypt ";
/// Whether a passphrase opens this keystore. A file that cannot be read has none: `hnd` says what is wrong with it.
pub(crate) fn is_needed(keystore: &Path) -> bool {
    let mut head = [0; SCRYPT_HEADER.len()];
    File::open(keystore).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == SCRYPT_HEADER
}

/// The passphrase of a keystore that exists, if it has one.
pub(crate) fn existing(keystore: &Path, from_stdin: bool) -> Result<Option<SecretText>, Failure> {
    if from_stdin {
        return read_line().map(Some);
    }
    if !is_needed(keystore) {
        return Ok(None);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(ErrorCode::Permission, format!("{} is sealed by a passphrase", keystore.display()))
            .hint("run this on a terminal, or pass the passphrase with --passphrase-stdin"));
    }
    ask("Passphrase of the keystore: ").map(Some)
}

/// A new passphrase, typed twice.
pub(crate) fn new(prompt: &str) -> Result<SecretText, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(ErrorCode::Usage, "there is no terminal to ask for a passphrase on")
            .hint("pass it with --passphrase-stdin"));
    }
    let first = ask(prompt)?;
    if first.is_empty() {
        return Err(
            Failure::new(ErrorCode::Usage, "the passphrase is empty").hint("leave out the option to do without one")
        );
    }
    if ask("Once more: ")? != first {
        return Err(Failure::new(ErrorCode::Usage, "the two passphrases differ").hint("try again; nothing was made"));
    }
    Ok(first)
}

pub(crate) fn ask(prompt: &str) -> Result<SecretText, Failure> {
    let typed = rpassword::prompt_password(prompt)
        .map(SecretText::new)
        .map_err(|error| Failure::io("cannot read the passphrase", &error))?;
    not_too_long(typed.expose())?;
    Ok(typed)
}

fn not_too_long(passphrase: &str) -> Result<(), Failure> {
    if passphrase.len() <= SECRET_MAX {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Usage, format!("the passphrase is longer than {SECRET_MAX} bytes"))
        .hint("take a shorter one; nothing was changed"))
}

/// One line of standard input.
pub(crate) fn read_line() -> Result<SecretText, Failure> {
    next(io::stdin().lock())
}

fn next(from: impl BufRead) -> Result<SecretText, Failure> {
    let mut line = Zeroizing::new(String::new());
    // Room for how the line ends.
    from.take(SECRET_MAX as u64 + 2)
        .read_line(&mut line)
        .map_err(|error| Failure::io("cannot read the passphrase from standard input", &error))?;
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(Failure::new(ErrorCode::NoInput, "standard input holds no passphrase")
            .hint("for example: printf '%s\\n' \"$PASSPHRASE\" | hn up --passphrase-stdin"));
    }
    not_too_long(line)?;
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keystore_tells_whether_it_has_a_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        assert!(!is_needed(&path));
        std::fs::write(&path, "age-encryption.org/v1\n-> scrypt c2FsdA 18\nbody").unwrap();
        assert!(is_needed(&path));
        std::fs::write(&path, "age-encryption.org/v1\n-> X25519 c2FsdA\nbody and more of it").unwrap();
        assert!(!is_needed(&path));
        assert_eq!(existing(&path, false), Ok(None));
    }
    #[test]
    fn a_passphrase_that_is_too_long_is_refused_and_not_cut_off() {
        let read = |text: String| next(text.as_bytes()).map(|read| read.expose().len());
        for end in ["", "\n", "\r\n"] {
            assert_eq!(read("x".repeat(SECRET_MAX) + end).unwrap(), SECRET_MAX, "{end:?}");
        }
        for long in [SECRET_MAX + 1, SECRET_MAX + 2, 2 * SECRET_MAX] {
            let failure = read("x".repeat(long) + "\n").unwrap_err();
            assert!(failure.code == ErrorCode::Usage && failure.message.contains("longer than 4096 bytes"), "{long}");
        }
        assert_eq!(read("\n".into()).unwrap_err().code, ErrorCode::NoInput);
    }
}
