//! Tables for people: as wide as the terminal at most, and with nothing in them that a terminal would obey.

use std::io::IsTerminal;

/// Narrower than this no column gets.
const NARROWEST: usize = 8;

/// What may be done to a column where there is too little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Nothing.
    Whole,
    /// It may be cut, and left out in the end; those on the right first.
    Cut,
}

/// A table whose rows come in portions; its columns never get narrower.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Fit)>,
    widths: Vec<usize>,
    width: Option<usize>,
    begun: bool,
}

impl Table {
    /// A table for a terminal with this many columns; `None` is no terminal, and nothing is cut.
    pub fn new(columns: &[(&'static str, Fit)], width: Option<usize>) -> Self {
        let widths = columns.iter().map(|(title, _)| title.len()).collect();
        Self { columns: columns.to_vec(), widths, width, begun: false }
    }

    /// The lines of these rows, the titles before the first.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> Vec<String> {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let widths = self.fitting();
        let titles =
            (!self.begun).then(|| self.columns.iter().map(|(title, _)| (*title).to_owned()).collect());
        self.begun = true;
        titles.into_iter().chain(rows).map(|row: Vec<String>| laid_out(&row, &widths)).collect()
    }

    /// Widths that fit; 0 for a column that is left out.
    fn fitting(&self) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let Some(room) = self.width else { return widths };
        let cut = |at: usize| self.columns.get(at).is_some_and(|(_, fit)| *fit == Fit::Cut);
        loop {
            let shown = widths.iter().filter(|width| **width > 0);
            let total: usize = shown.clone().sum::<usize>() + 2 * shown.count().saturating_sub(1);
            if total <= room {
                return widths;
            }
            let candidates = widths.iter_mut().enumerate().filter(|(at, width)| cut(*at) && **width > 0);
            let Some((_, widest)) = candidates.max_by_key(|(_, width)| **width) else { return widths };
            if *widest > NARROWEST {
                *widest = widest.saturating_sub(total - room).max(NARROWEST);
                continue;
            }
            match widths.iter_mut().enumerate().rfind(|(at, width)| cut(*at) && **width > 0) {
                Some((_, last)) => *last = 0,
                None => return widths,
            }
        }
    }
}

fn laid_out(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths).filter(|(_, width)| **width > 0) {
        if cell.chars().count() > *width {
            line.extend(cell.chars().take(width.saturating_sub(1)));
            line.push_str("…  ");
        } else {
            line.push_str(&format!("{cell:<width$}  "));
        }
    }
    line.trim_end().to_owned()
}

/// A text on one line without anything that changes the terminal: facts come from callers.
pub fn plain(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{FFFD}' } else { c }).collect()
}

/// Columns of the terminal that standard output goes to; `None` where it goes elsewhere.
pub fn terminal_width() -> Option<usize> {
    let output = std::io::stdout();
    if !output.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&output).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    const COLUMNS: [(&str, Fit); 4] =
        [("NAME", Fit::Whole), ("AGENT", Fit::Cut), ("QUEUE", Fit::Cut), ("N", Fit::Cut)];

    fn row(cells: [&str; 4]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let mut table = Table::new(&COLUMNS, None);
        let long = "x".repeat(200);
        let lines = table.lines(&[row(["a", &long, "q", "1"])]);
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["NAME", "AGENT", "QUEUE", "N"]);
        assert!(lines[1].contains(&long));
        assert_eq!(table.lines(&[row(["b", "", "", "2"])]).len(), 1, "titles come once");
    }

    #[test]
    fn a_narrow_terminal_cuts_then_leaves_out() {
        for width in [20, 30, 40, 60, 200] {
            let mut table = Table::new(&COLUMNS, Some(width));
            let lines = table.lines(&[row(["R1.wav", "Björn Ågren the Second", "Support, first line", "7"])]);
            for line in &lines {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
                assert!(!line.is_empty());
            }
            assert!(lines[1].starts_with("R1.wav"), "{lines:?}");
        }
        let lines = Table::new(&COLUMNS, Some(20)).lines(&[row(["R1.wav", "Björn Ågren", "Support", "7"])]);
        assert_eq!(lines[1], "R1.wav  Björn Å…");
    }

    #[test]
    fn nothing_in_a_cell_is_obeyed() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}d");
        assert_eq!(plain("Zoë ½"), "Zoë ½");
    }
}
