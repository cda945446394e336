//! The 64 pictures and their words that people compare: the table of the Matrix specification ("SAS method: emoji").

const TABLE: [(&str, &str); 64] = [
    ("🐶", "dog"),
    ("🐱", "cat"),
    ("🦁", "lion"),
    ("🐎", "horse"),
    ("🦄", "unicorn"),
    ("🐷", "pig"),
    ("🐘", "elephant"),
    ("🐰", "rabbit"),
    ("🐼", "panda"),
    ("🐓", "rooster"),
    ("🐧", "penguin"),
    ("🐢", "turtle"),
    ("🐟", "fish"),
    ("🐙", "octopus"),
    ("🦋", "butterfly"),
    ("🌷", "flower"),
    ("🌳", "tree"),
    ("🌵", "cactus"),
    ("🍄", "mushroom"),
    ("🌏", "globe"),
    ("🌙", "moon"),
    ("☁️", "cloud"),
    ("🔥", "fire"),
    ("🍌", "banana"),
    ("🍎", "apple"),
    ("🍓", "strawberry"),
    ("🌽", "corn"),
    ("🍕", "pizza"),
    ("🎂", "cake"),
    ("❤️", "heart"),
    ("😀", "smiley"),
    ("🤖", "robot"),
    ("🎩", "hat"),
    ("👓", "glasses"),
    ("🔧", "spanner"),
    ("🎅", "santa"),
    ("👍", "thumbs-up"),
    ("☂️", "umbrella"),
    ("⌛", "hourglass"),
    ("⏰", "clock"),
    ("🎁", "gift"),
    ("💡", "light-bulb"),
    ("📕", "book"),
    ("✏️", "pencil"),
    ("📎", "paperclip"),
    ("✂️", "scissors"),
    ("🔒", "lock"),
    ("🔑", "key"),
    ("🔨", "hammer"),
    ("☎️", "telephone"),
    ("🏁", "flag"),
    ("🚂", "train"),
    ("🚲", "bicycle"),
    ("✈️", "aeroplane"),
    ("🚀", "rocket"),
    ("🏆", "trophy"),
    ("⚽", "ball"),
    ("🎸", "guitar"),
    ("🎺", "trumpet"),
    ("🔔", "bell"),
    ("⚓", "anchor"),
    ("🎧", "headphones"),
    ("📁", "folder"),
    ("📌", "pin"),
];

/// What both sides see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture([u8; 7]);

impl Picture {
    /// Of numbers below 64; of larger ones only their last six bits count.
    pub(crate) fn new(indices: [u8; 7]) -> Self {
        Self(indices.map(|index| index & 63))
    }

    fn rows(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.into_iter().filter_map(|index| TABLE.get(usize::from(index)).copied())
    }

    /// As pictures.
    pub(crate) fn emoji(self) -> Vec<String> {
        self.rows().map(|(emoji, _)| emoji.to_owned()).collect()
    }

    /// As words.
    pub(crate) fn words(self) -> Vec<String> {
        self.rows().map(|(_, word)| word.to_owned()).collect()
    }

    /// Whether somebody has told these words, in this order.
    pub(crate) fn is_told_by(self, told: &[String]) -> bool {
        let letters = |words: &mut dyn Iterator<Item = &str>| -> Vec<char> {
            words.flat_map(str::chars).filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect()
        };
        letters(&mut self.rows().map(|(_, word)| word)) == letters(&mut told.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_has_one_word_of_its_own() {
        for column in [|row: &(&'static str, &'static str)| row.0, |row: &(&'static str, &'static str)| row.1] {
            let mut all: Vec<_> = TABLE.iter().map(column).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 64);
        }
        // Where words run together nobody can tell others for them.
        assert!(TABLE.iter().all(|(_, word)| !word.contains(' ') && word.len() >= 3));
    }

    #[test]
    fn words_are_told_in_any_writing_and_in_order_only() {
        let picture = Picture::new([0, 36, 41, 63, 63, 1, 2]);
        let told = |text: &str| picture.is_told_by(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(picture.is_told_by(&picture.words()));
        assert!(told("Dog Thumbs Up LIGHT-BULB pin pin cat lion"));
        assert!(!told("dog light-bulb thumbs-up pin pin cat lion"));
        assert!(!told("dog thumbs-up light-bulb pin pin cat") && !told(""));
        assert_eq!(picture.emoji()[..2], ["🐶", "👍"]);
    }
}
