//! QR codes in a terminal: two rows of squares in each line, by half blocks.
//!
//! What is light in the picture is drawn, in the terminal's brightest white on black where there are colours: without them
//! it is right on a dark background, where most terminals are.

use std::io::{self, IsTerminal};

use clap::builder::styling::{AnsiColor, Color, Style};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

const STYLE: Style =
    Style::new().fg_color(Some(Color::Ansi(AnsiColor::BrightWhite))).bg_color(Some(Color::Ansi(AnsiColor::Black)));

/// A picture of a text, unless that is too long for one.
pub(crate) fn lines(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let mut picture = code.render::<Dense1x2>();
    picture.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true);
    Some(picture.build())
}

/// The same, in colours that scanners take in any terminal.
pub(crate) fn coloured(picture: &str) -> String {
    picture.lines().map(|line| format!("{STYLE}{line}{STYLE:#}")).collect::<Vec<_>>().join("\n")
}

/// A picture for a person who watches standard error.
pub(crate) fn for_terminal(text: &str) -> Option<String> {
    io::stderr().is_terminal().then(|| lines(text)).flatten().map(|picture| coloured(&picture))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Squares of a picture: true where it is dark.
    fn squares(picture: &str) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in picture.lines() {
            let halves = |upper| {
                let is_drawn = move |c| matches!((c, upper), ('█', _) | ('▀', true) | ('▄', false));
                line.chars().map(|c| !is_drawn(c)).collect::<Vec<bool>>()
            };
            rows.extend([halves(true), halves(false)]);
        }
        rows
    }

    /// What a scanner reads, each square being some pixels wide.
    fn scanned(picture: &str) -> String {
        const PIXELS: usize = 4;
        let rows = squares(picture);
        let (width, height) = (rows[0].len(), rows.len());
        assert!(rows.iter().all(|row| row.len() == width), "lines of one length");
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width * PIXELS, height * PIXELS, |x, y| {
            if rows[y / PIXELS][x / PIXELS] { 0 } else { 255 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn a_scanner_reads_what_is_drawn() {
        let address = format!("HN1{}", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".repeat(3).get(..83).unwrap());
        let link = format!(
            "hypernet:pair/mvqx-7k2p-wd3h-4c5a/abcdef{}",
            "?via=/ip4/192.168.178.23/udp/40123/quic-v1".repeat(4)
        );
        for text in [address.as_str(), &link, "x"] {
            assert_eq!(scanned(&lines(text).unwrap()), text);
        }
        // An address fits a terminal of ordinary size.
        let picture = lines(&address).unwrap();
        assert!(picture.lines().count() <= 24 && picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
        assert_eq!(lines(&"x".repeat(10_000)), None);
    }
}
