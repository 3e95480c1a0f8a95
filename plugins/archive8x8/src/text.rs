//! Cells as text.

use std::borrow::Cow;

/// A cell as text: UTF-8, or, where it isn't, Windows-1252, which reads Latin-1 alike and takes every byte.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect::<String>().into(),
    }
}

/// A cell without the `'` that keeps spreadsheets from taking it for a formula, and without spaces around it.
///
/// A space after it stands for a control character that began the cell.
pub(crate) fn unguarded(cell: &str) -> &str {
    let cell = cell.trim();
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(|c: char| matches!(c, '=' | '+' | '-' | '@') || c.is_whitespace()) => {
            rest.trim_start()
        }
        _ => cell,
    }
}

/// As much of a text as has at most this many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

/// The character of a byte. The five bytes that Windows-1252 leaves open are control characters, as browsers read them
/// (WHATWG Encoding Standard, index-windows-1252).
fn windows_1252(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    let high = byte.checked_sub(0x80).and_then(|high| HIGH.get(usize::from(high)));
    high.copied().unwrap_or(char::from(byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_are_utf_8_or_windows_1252() {
        assert_eq!(decode("Björn Ågren 東京".as_bytes()), "Björn Ågren 東京");
        assert_eq!(decode(b"Bj\xf6rn \xc5gren"), "Björn Ågren");
        assert_eq!(decode(b"\x80 \x93quoted\x94 \xff"), "€ “quoted” ÿ");
        assert_eq!(decode(b"\x81\xfe"), "\u{81}þ");
        let all: BTreeSet<char> = (0..=255).map(windows_1252).collect();
        assert_eq!(all.len(), 256, "no two bytes are read alike: nothing is lost");
        assert_eq!((windows_1252(0x7f), windows_1252(0xa0)), ('\u{7f}', '\u{a0}'));
    }

    #[test]
    fn guards_are_removed_and_apostrophes_stay() {
        for (cell, text) in [
            ("'=1+1", "=1+1"),
            ("'+1 202", "+1 202"),
            ("'-1", "-1"),
            ("'@SUM(A1)", "@SUM(A1)"),
            ("' =1", "=1"),
            ("+12025553989", "+12025553989"),
            ("'twas", "'twas"),
            ("'", "'"),
            ("''=1", "''=1"),
            (" plain ", "plain"),
            ("", ""),
        ] {
            assert_eq!(unguarded(cell), text, "{cell:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_text_is_the_beginning_of_it(text in "\\PC{0,20}", most in 0..40_usize) {
            let cut = cut(&text, most);
            prop_assert!(cut.len() <= most && text.starts_with(cut));
            prop_assert!(cut.len() + 4 > most.min(text.len()));
        }
    }
}
