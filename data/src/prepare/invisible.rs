//! Invisible characters: white space of any alphabet, byte order marks, zero-width marks.
//!
//! Editors, web pages and spreadsheets insert them without the author's knowledge. They carry no
//! meaning here and separate no words.

/// The bytes of the first character, if it is one that nobody sees; 0 otherwise.
pub(crate) fn first_invisible(text: &[u8]) -> usize {
    let Some(&first) = text.first() else {
        return 0;
    };
    match first {
        b' ' | b'\t'..=b'\r' => 1,
        0..0x80 => 0,
        // The no-break space of Latin-1. No character of UTF-8 begins with it.
        0xa0 => 1,
        _ => {
            let of = |length: usize| {
                let text = std::str::from_utf8(text.get(..length)?).ok()?;
                text.chars().next()
            };
            let unseen = |c: char| {
                let mark = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
                c.is_whitespace() || mark
            };
            let length = (2..=3).find(|&length| of(length).is_some_and(unseen));
            length.unwrap_or(0)
        }
    }
}

/// How many bytes at the beginning belong to characters that nobody sees.
pub(crate) fn leading_invisible(text: &[u8]) -> usize {
    let mut end = 0;
    loop {
        match first_invisible(&text[end..]) {
            0 => return end,
            length => end += length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_passed_over() {
        for text in [
            &b" \t\x0b\r\nM"[..],
            "\u{feff}\u{a0}\u{2028}\u{3000}\u{200b}\u{85}M".as_bytes(),
            b"\xa0M",
        ] {
            assert_eq!(text[leading_invisible(text)..], b"M"[..], "{text:?}");
        }
        // Seen, or no whole character.
        for text in [
            "M".as_bytes(),
            "\u{e9}".as_bytes(),
            b"\xef\xbb",
            b"\xc2",
            b"\x1f",
            b"",
        ] {
            assert_eq!(leading_invisible(text), 0, "{text:?}");
        }
    }
}
