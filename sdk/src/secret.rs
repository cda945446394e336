//! Secrets as text, and the process that holds them.
//!
//! Invariant: words and passphrases are in a [`SecretText`] from where they are typed to where they are used. It is wiped
//! when dropped and never shows, so that no log line, no error and no `{:?}` can tell one.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of the longest passphrase, and of any other secret that stands in a line. What is longer is refused and never cut
/// off, or another command might cut it off elsewhere.
pub const SECRET_MAX: usize = 4096;

/// Text that is a secret: words, or a passphrase.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Takes text over.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for using it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Never the text, nor how long it is.
impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// No core file ever shows what this process has in memory, and no other process of its user reads it: the kernel dumps
/// none that is not dumpable, also where cores go to a program instead of a file, and lets nobody but root trace it or
/// open its `/proc/PID/mem`. Who asks after it reads `/proc/PID/stat` and `status`, which stay open to all.
pub fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // One of the two is enough; a kernel or a sandbox may forbid either.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        PhraseInput, RecoverRequest, RenewDeviceRequest, RevokeDeviceRequest, SealRequest, SealedBy,
        SetGuardiansRequest, SharedWordsRequest, Words,
    };

    #[test]
    fn nothing_that_has_a_secret_in_it_shows_it() {
        let secret = || SecretText::from("correct horse");
        let phrase = || Some(PhraseInput::new(secret(), secret()));
        let shown = [
            format!("{:?}", secret()),
            format!("{:#?}", phrase()),
            format!("{:?}", Words { words: vec![secret(); 24] }),
            format!("{:?}", RecoverRequest { phrase: phrase(), ..Default::default() }),
            format!("{:?}", RevokeDeviceRequest { name: "laptop".into(), force: false, phrase: phrase() }),
            format!("{:?}", RenewDeviceRequest { phrase: PhraseInput::new(secret(), secret()) }),
            format!("{:?}", SharedWordsRequest { passphrase: secret() }),
            format!(
                "{:?}",
                SetGuardiansRequest { threshold: 2, guardians: vec![], phrase: PhraseInput::new(secret(), secret()) }
            ),
            format!("{:?}", SealRequest { old: Some(secret()), by: SealedBy::Passphrase, new: Some(secret()) }),
        ];
        for text in shown {
            assert!(text.contains("(..)") && !text.contains("correct") && !text.contains("horse"), "{text}");
        }
    }

    #[test]
    fn on_the_wire_it_is_a_string() {
        let text = serde_json::to_string(&SecretText::from("a \"b\"")).unwrap();
        assert_eq!(text, r#""a \"b\"""#);
        assert_eq!(serde_json::from_str::<SecretText>(&text).unwrap().expose(), "a \"b\"");
    }
}
