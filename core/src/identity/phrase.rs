//! The 24 words that bring everything back: 256 random bits as BIP-39 writes them, in English.
//!
//! Words and checksum are those of [BIP-39], so that any tool for such phrases can check one; what is made of them is
//! Hypernet's own. The phrase is shown once and kept by nobody: what it yields ([`RecoveryKeys`]) is in memory only
//! while an identity is made or recovered.
//!
//! [BIP-39]: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki

use std::fmt;

use bip39::{Language, Mnemonic};
use thiserror::Error;
use zeroize::Zeroize;

use crate::key::{RecoveryKeys, Secret};

/// Words of a phrase.
pub const WORDS: usize = 24;

/// Words that are named when one is not known.
const SUGGESTIONS: usize = 4;
/// Changes of letters between a word and what is suggested for it.
const DISTANCE_MAX: usize = 2;

/// 24 words.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(Mnemonic);

/// Why words are no phrase.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum PhraseError {
    /// More or fewer than there are.
    #[error("a phrase has {WORDS} words, and these are {0}")]
    Count(usize),
    /// A word that is not on the list.
    #[error("word {number}, `{word}`, is not one of the words that there are{}", suggested(.suggestions))]
    Unknown {
        /// Which one, from 1.
        number: usize,
        /// The word as it came.
        word: String,
        /// Words that may be meant.
        suggestions: Vec<&'static str>,
    },
    /// Each is a word, and together they are no phrase.
    #[error("all {WORDS} are words, but they do not belong together: one of them is another word, or in another place")]
    Checksum,
}

fn suggested(words: &[&'static str]) -> String {
    if words.is_empty() { String::new() } else { format!("; perhaps {}?", words.join(", ")) }
}

impl Phrase {
    /// The phrase of 256 random bits.
    pub fn new(entropy: &Secret) -> Self {
        match Mnemonic::from_entropy_in(Language::English, entropy.expose()) {
            Ok(mnemonic) => Self(mnemonic),
            // It has a phrase for each number of bits that the standard names, and 256 is one.
            Err(_) => unreachable!("32 bytes are 24 words"),
        }
    }

    /// Reads words as a person types them: any case, any space between them, numbers before them.
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        let mut words: Vec<String> =
            text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        let parsed = Self::from_words(&words);
        words.iter_mut().for_each(Zeroize::zeroize);
        parsed
    }

    fn from_words(words: &[String]) -> Result<Self, PhraseError> {
        // A word that is not known says more than the number of them.
        if let Some(at) = words.iter().position(|word| Language::English.find_word(word).is_none()) {
            let word = words[at].clone();
            return Err(PhraseError::Unknown { number: at + 1, suggestions: similar(&word), word });
        }
        if words.len() != WORDS {
            return Err(PhraseError::Count(words.len()));
        }
        let mut text = words.join(" ");
        let parsed = Mnemonic::parse_in_normalized(Language::English, &text);
        text.zeroize();
        parsed.map(Self).map_err(|_| PhraseError::Checksum)
    }

    /// The 256 bits.
    pub fn entropy(&self) -> Secret {
        let (mut bits, _) = self.0.to_entropy_array();
        let mut entropy = [0; 32];
        entropy.copy_from_slice(&bits[..32]);
        bits.zeroize();
        let secret = Secret::new(entropy);
        entropy.zeroize();
        secret
    }

    /// The words, in order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.0.words()
    }

    /// What it yields together with a passphrase, which may be empty: with another one it yields another identity.
    /// Takes some milliseconds: the seed is stretched as BIP-39 says.
    pub fn keys(&self, passphrase: &str) -> RecoveryKeys {
        let mut seed = self.0.to_seed(passphrase);
        let keys = RecoveryKeys::new(&seed);
        seed.zeroize();
        keys
    }
}

/// Never the words.
impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(..)")
    }
}

/// The words that this one may stand for, the likeliest first. The first four letters of a word are no other's.
fn similar(word: &str) -> Vec<&'static str> {
    let start: String = word.chars().take(4).collect();
    let rank = |known: &&'static str| {
        let distance = strsim::damerau_levenshtein(word, known);
        let same_start = start.chars().count() == 4 && known.starts_with(&start);
        (same_start || distance <= DISTANCE_MAX).then_some((!same_start, distance, *known))
    };
    let mut ranked: Vec<_> = Language::English.word_list().iter().filter_map(rank).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., known)| known).take(SUGGESTIONS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn phrase() -> Phrase {
        Phrase::new(&Secret::new([0; 32]))
    }

    /// From the test vectors of BIP-39.
    #[test]
    fn words_are_those_of_the_standard() {
        let words: Vec<&str> = phrase().words().collect();
        assert_eq!(words, [vec!["abandon"; 23], vec!["art"]].concat());
        let all = Phrase::new(&Secret::new([0xff; 32]));
        assert_eq!(all.words().collect::<Vec<_>>(), [vec!["zoo"; 23], vec!["vote"]].concat());
    }

    #[test]
    fn what_a_person_types_is_read() {
        let lines: Vec<String> = phrase().words().enumerate().map(|(i, word)| format!("{}. {word}", i + 1)).collect();
        for text in [lines.join("\n"), lines.join(" ").to_uppercase(), format!("  {}\n", lines.join(",\t"))] {
            assert_eq!(Phrase::parse(&text), Ok(phrase()), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_mistyped_is_named_with_what_it_may_be() {
        let with = |at: usize, word: &str| {
            let mut words: Vec<&str> = Vec::from_iter(phrase().words());
            words[at] = word;
            Phrase::parse(&words.join(" ")).unwrap_err()
        };
        let PhraseError::Unknown { number, word, suggestions } = with(6, "abandn") else { panic!("it was read") };
        assert_eq!((number, word.as_str(), suggestions[0]), (7, "abandn", "abandon"));
        let PhraseError::Unknown { suggestions, .. } = with(0, "zebr") else { panic!("it was read") };
        assert_eq!(suggestions[0], "zebra");
        let PhraseError::Unknown { suggestions, .. } = with(0, "xqxqxqx") else { panic!("it was read") };
        assert!(suggestions.is_empty());
        assert_eq!(with(3, "zoo"), PhraseError::Checksum);
        assert_eq!(Phrase::parse("abandon abandon"), Err(PhraseError::Count(2)));
        assert_eq!(Phrase::parse(""), Err(PhraseError::Count(0)));
        assert!(with(6, "abandn").to_string().contains("word 7, `abandn`"));
    }

    #[test]
    fn it_never_prints() {
        assert_eq!(format!("{:?}", phrase()), "Phrase(..)");
    }

    proptest! {
        #[test]
        fn every_phrase_is_read_back_and_any_text_is_read_or_refused(entropy: [u8; 32], text: String) {
            let phrase = Phrase::new(&Secret::new(entropy));
            let words = Vec::from_iter(phrase.words());
            prop_assert_eq!(words.len(), WORDS);
            prop_assert!(phrase.entropy().expose() == &entropy);
            prop_assert_eq!(Phrase::parse(&words.join(" ")), Ok(phrase));
            let _ = Phrase::parse(&text);
        }
    }
}
