//! Sizes as people write them.

use std::fmt;

/// A number of bytes, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => bytes.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// A size, or `none`. The error is a sentence for the person who wrote it.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        size => parse_size(size).map(|bytes| Limit(Some(bytes))).map_err(|error| format!("{error}, or none")),
    }
}

/// Sizes as people write them: 50G, 1.5T, 512MiB, 1048576. Always powers of 1024. The error is a sentence for
/// the person who wrote it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const WRONG: &str = "a size looks like 50G, 512M or 1048576";
    let lower = text.trim().to_ascii_lowercase();
    let digits_end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(digits_end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(WRONG.into()),
    };
    let value: f64 = digits.parse().map_err(|_| WRONG.to_owned())?;
    let bytes = value * 2f64.powi(shift);
    // 8 PiB: beyond it an f64 no longer tells bytes apart, and no disk is that large.
    if !bytes.is_finite() || bytes > 2f64.powi(53) {
        return Err("this size is out of range".into());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("50G"), Ok(50 << 30));
        assert_eq!(parse_size("1.5m"), Ok(3 << 19));
        assert_eq!(parse_size("2 TiB"), Ok(2 << 40));
        assert_eq!(parse_size("123"), Ok(123));
        for wrong in ["much", "-1", "", "G", "1.2.3M", "1e9", "99999999T", "nan"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_a_size_or_none() {
        assert_eq!(parse_limit("20G"), Ok(Limit(Some(20 << 30))));
        assert_eq!(parse_limit("none"), Ok(Limit(None)));
        assert!(parse_limit("much").unwrap_err().ends_with("or none"));
        assert_eq!(Limit(Some(5)).to_string() + &Limit(None).to_string(), "5none");
    }
}
