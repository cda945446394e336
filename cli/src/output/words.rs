//! Numbers as people read them.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount};

/// 1.50 GiB.
pub(crate) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// 83,731.
pub(crate) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// 1 file, 2 files.
pub(crate) fn plural(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// 3h 20m: the two largest units.
pub(crate) fn seconds(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// 1.2 s, 350 ms, 3m 20s.
pub(crate) fn millis(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", millis as f64 / 1e3),
        _ => seconds(millis / 1000),
    }
}

/// 98.5 %.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// 99.9999 %: never rounded up. More digits than that nobody has measured.
pub(crate) fn percent_at_least(share: f64) -> String {
    format!("{} %", (share * 1e6).floor() / 1e4)
}

/// The end of a long id, which is where ids of peers differ.
pub(crate) fn short(id: &str) -> String {
    let chars = id.chars().count();
    match chars {
        0..=14 => id.to_owned(),
        _ => format!("…{}", id.chars().skip(chars - 12).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(3 << 29), "1.50 GiB");
        assert_eq!(plural(1, "file"), "1 file");
        assert_eq!(plural(83_731, "file"), "83,731 files");
        assert_eq!(seconds(3 * 3600 + 20 * 60 + 5), "3h 20m");
        assert_eq!(seconds(0), "0s");
        assert_eq!(millis(350), "350 ms");
        assert_eq!(millis(1_240), "1.2 s");
        assert_eq!(millis(200_000), "3m 20s");
        assert_eq!(percent(0.985), "98.5 %");
        assert_eq!(percent_at_least(0.999_999_9), "99.9999 %");
        assert_eq!(short("12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"), "…U1Nft9HyQ6X".replace("…", "…b"));
        assert_eq!(short("abc"), "abc");
    }
}
