//! Walks a parsed TOML document and collects every mistake instead of stopping at the first, as a
//! deserializer would. A section that is finished has had all its keys asked for: the others are unknown.

use std::{cell::RefCell, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    inspect::{Mention, Place, Tree},
    problems::{Mistake, Problem, Problems},
    values,
};

/// More mistakes than this are counted, not told: nobody reads them.
const MOST_PROBLEMS: usize = 200;

/// The document with the mistakes found so far.
pub(super) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    found: RefCell<Found>,
}

impl<'t> Document<'t> {
    pub fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, found: RefCell::default() }
    }

    /// Notes a mistake at a byte offset of the document.
    pub fn report(&self, at: usize, key: &str, mistake: Mistake) {
        self.found.borrow_mut().report(self.file, self.text, at, key, mistake);
    }

    /// The line of a byte offset, from 1.
    fn line(&self, at: usize) -> usize {
        place(self.text, at).0
    }

    /// The mistakes.
    pub fn into_found(self) -> Found {
        self.found.into_inner()
    }
}

/// Mistakes with their byte offsets.
#[derive(Debug, Default)]
pub(super) struct Found {
    problems: Vec<(usize, Problem)>,
    untold: usize,
}

impl Found {
    /// A mistake that keeps the document from being read at all.
    pub fn of(problem: Problem) -> Self {
        Self { problems: vec![(0, problem)], untold: 0 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes a mistake at a byte offset of a text.
    pub fn report(&mut self, file: &Path, text: &str, at: usize, key: &str, mistake: Mistake) {
        if self.problems.len() >= MOST_PROBLEMS {
            self.untold = self.untold.saturating_add(1);
            return;
        }
        let (line, column) = place(text, at);
        let problem = Problem {
            file: file.to_owned(),
            line: Some(line),
            column: Some(column),
            key: key.to_owned(),
            wrong: mistake.wrong,
            remedy: mistake.remedy,
        };
        self.problems.push((at, problem));
    }

    /// The mistakes in the order of the file.
    pub fn into_problems(mut self, file: &Path) -> Problems {
        self.problems.sort_by_key(|(at, _)| *at);
        let mut problems: Vec<_> = self.problems.into_iter().map(|(_, problem)| problem).collect();
        if self.untold > 0 {
            problems.push(Problem {
                file: file.to_owned(),
                line: None,
                column: None,
                key: String::new(),
                wrong: format!("there are {} more mistakes", self.untold),
                remedy: "Correct these first.".to_owned(),
            });
        }
        Problems(problems)
    }
}

/// Line and column, both from 1, of a byte offset.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// A table of the document.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    at: usize,
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    /// The document's root.
    pub fn root(document: &'d Document<'d>, table: &'d DeTable<'d>) -> Self {
        Self { document, path: String::new(), at: 0, table: Some(table), known: Vec::new() }
    }

    /// The value of a key, which is known from now on.
    pub fn field(&mut self, key: &'static str) -> Option<Field<'d>> {
        self.known.push(key);
        let (name, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Field { document: self.document, path: join(&self.path, key), key: name.span(), value })
    }

    /// The value of a key that must be there. `remedy` says what to write.
    pub fn required(&mut self, key: &'static str, remedy: &str) -> Option<Field<'d>> {
        let field = self.field(key);
        if field.is_none() {
            self.report(Mistake::new(format!("{key} is missing"), remedy));
        }
        field
    }

    /// A table below this one; an absent one reads as empty.
    pub fn section(&mut self, key: &'static str) -> Section<'d> {
        let path = join(&self.path, key);
        match self.field(key) {
            Some(field) => field.section().unwrap_or_else(|| self.absent(path)),
            None => self.absent(path),
        }
    }

    /// Notes a mistake of the section as a whole.
    pub fn report(&self, mistake: Mistake) {
        self.document.report(self.at, &self.path, mistake);
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { at: self.at, key: self.path.clone() }
    }

    /// Notes the keys that nobody has asked for.
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        for (name, _) in table.iter() {
            let key = name.get_ref().as_ref();
            if self.known.contains(&key) {
                continue;
            }
            let remedy = match values::nearest(key, self.known.iter().copied()) {
                Some(near) => format!("Did you mean {near}?"),
                None => format!("Remove it, or take one of: {}.", self.known.join(", ")),
            };
            let shown = values::shortened(key);
            self.document.report(
                name.span().start,
                &join(&self.path, &shown),
                Mistake::new("there is no such key", remedy),
            );
        }
    }

    fn absent(&self, path: String) -> Section<'d> {
        Section { document: self.document, path, at: self.at, table: None, known: Vec::new() }
    }
}

/// A key with its value.
pub(super) struct Field<'d> {
    document: &'d Document<'d>,
    path: String,
    key: Range<usize>,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Field<'d> {
    /// Notes a mistake of the value.
    pub fn report(&self, mistake: Mistake) {
        self.document.report(self.value.span().start, &self.path, mistake);
    }

    /// The line of the value, from 1.
    pub fn line(&self) -> usize {
        self.document.line(self.value.span().start)
    }

    /// That it stands there, and whether it is right.
    pub fn mention(&self, right: bool) -> Mention {
        Mention { place: Place { at: self.value.span().start, key: self.path.clone() }, right }
    }

    /// Where everything below it stands.
    pub fn tree(&self) -> Tree {
        Tree::new(&self.key, self.value)
    }

    /// The raw value.
    pub fn value(&self) -> &'d DeValue<'d> {
        self.value.get_ref()
    }

    /// A string.
    pub fn text(&self, example: &str) -> Option<&'d str> {
        let text = self.value().as_str();
        if text.is_none() {
            self.wrong_type("a string", example);
        }
        text
    }

    /// A string in a form of its own.
    pub fn parsed<T>(&self, example: &str, parse: impl FnOnce(&str) -> Result<T, Mistake>) -> Option<T> {
        match parse(self.text(example)?) {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.report(mistake);
                None
            }
        }
    }

    /// A boolean.
    pub fn boolean(&self, example: &str) -> Option<bool> {
        match self.value() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong_type("true or false", example);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn integer(&self, example: &str, least: u64, most: u64) -> Option<u64> {
        let DeValue::Integer(integer) = self.value() else {
            self.wrong_type("a whole number", example);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix());
        let number = number.ok().and_then(|number| u64::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(number),
            None => {
                let shown = values::shortened(&integer.to_string());
                self.report(Mistake::new(
                    format!("{shown} is out of range"),
                    format!("Write a number from {least} to {most}."),
                ));
                None
            }
        }
    }

    /// The elements of an array.
    pub fn elements(&self, example: &str) -> Vec<Field<'d>> {
        let Some(array) = self.value().as_array() else {
            self.wrong_type("an array", example);
            return Vec::new();
        };
        let element = |(number, value): (usize, &'d Spanned<DeValue<'d>>)| Field {
            document: self.document,
            path: format!("{}[{number}]", self.path),
            key: value.span(),
            value,
        };
        array.iter().enumerate().map(element).collect()
    }

    /// The tables of an array of tables; `header` is what introduces one.
    pub fn sections(&self, header: &str) -> Vec<Section<'d>> {
        if !self.value().is_array() {
            self.report(Mistake::new(
                format!("expected tables that begin with {header}, found {}", article(self.value())),
                format!("Write {header} on a line of its own, then the keys."),
            ));
            return Vec::new();
        }
        self.elements("").iter().filter_map(Field::section).collect()
    }

    /// A table.
    pub fn section(&self) -> Option<Section<'d>> {
        let Some(table) = self.value().as_table() else {
            self.wrong_type("a table", &format!("[{}]", self.path));
            return None;
        };
        let at = start(&self.key, self.value);
        Some(Section {
            document: self.document,
            path: self.path.clone(),
            at,
            table: Some(table),
            known: Vec::new(),
        })
    }

    fn wrong_type(&self, expected: &str, example: &str) {
        self.report(Mistake::new(
            format!("expected {expected}, found {}", article(self.value())),
            format!("Write for example {example}."),
        ));
    }
}

/// Where a value stands under its key.
pub(super) fn start(key: &Range<usize>, value: &Spanned<DeValue<'_>>) -> usize {
    // The parser gives a table under a header the place of that header.
    value.span().start.max(key.start)
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
