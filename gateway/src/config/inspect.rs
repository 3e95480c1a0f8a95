//! A configuration as far as it could be read, with the places in the file of what other parts of the gateway judge:
//! whether there is such a plugin, and whether it takes the settings.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, MOST_BYTES, Problem, Problems, Source,
    files::{self, Privacy},
    problems::Mistake,
    read,
    walk::{self, Document, Found, Section},
};

/// A configuration that was read, with the mistakes found so far. More may be added before they are told.
#[derive(Debug)]
pub struct Inspection {
    /// The sources, as they stand in the file. Those that aren't tables are left out.
    pub sources: Vec<SourceDraft>,
    file: PathBuf,
    text: String,
    found: Found,
    config: Option<Config>,
}

/// A source as far as it could be read.
#[derive(Debug, Clone)]
pub struct SourceDraft {
    /// Its tenant's name; empty where that is wrong.
    pub tenant: String,
    /// What it says. Stand-ins where it is wrong: ask [`SourceDraft::is_right`] before you rely on a part.
    pub source: Source,
    pub(super) whole: Place,
    pub(super) plugin: Option<Mention>,
    pub(super) isolation: Option<Mention>,
    pub(super) sha256: Option<Mention>,
    pub(super) settings: Option<(Mention, Tree)>,
}

/// A part of a source that others judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'p> {
    /// `plugin`
    Plugin,
    /// `isolation`
    Isolation,
    /// `sha256`
    Sha256,
    /// A value in `settings`, by its JSON pointer; the whole table is the empty one.
    Setting(&'p str),
    /// A key in `settings`, by its JSON pointer.
    SettingKey(&'p str),
}

/// Where something stands: byte offset and key.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub at: usize,
    pub key: String,
}

/// A key that stands in the file.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub place: Place,
    pub right: bool,
}

/// Reads a configuration file, and the files that it names, as far as that can be done.
pub fn inspect(path: &Path) -> Inspection {
    let unreadable = |absolute: &Path, mistake: Mistake| {
        let missing = absolute.try_exists().is_ok_and(|exists| !exists);
        // The mistake is told with the file's name before it.
        let shown = format!("{} ", absolute.display());
        let problem = Problem {
            file: path.to_owned(),
            line: None,
            column: None,
            key: String::new(),
            wrong: mistake.wrong.strip_prefix(&shown).unwrap_or(&mistake.wrong).to_owned(),
            remedy: match missing {
                true => "Make it, or name another with --config or RECGATE_CONFIG.".to_owned(),
                false => mistake.remedy,
            },
        };
        Inspection {
            sources: Vec::new(),
            file: path.to_owned(),
            text: String::new(),
            found: Found::of(problem),
            config: None,
        }
    };
    let absolute = match std::path::absolute(path) {
        Ok(absolute) => absolute,
        Err(error) => return unreadable(path, Mistake::new(error.to_string(), "Name a file.")),
    };
    match files::read(&absolute, MOST_BYTES, Privacy::Trusted) {
        Ok(text) => inspect_text(path, text, absolute.parent().unwrap_or(Path::new("/"))),
        Err(mistake) => unreadable(&absolute, mistake),
    }
}

/// Reads a configuration's text. `file` is named in mistakes, relative paths begin from `base`.
pub(super) fn inspect_text(file: &Path, text: String, base: &Path) -> Inspection {
    let document = Document::new(file, &text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut sources = Vec::new();
    let config = if errors.is_empty() {
        Some(read::config(Section::root(&document, table.get_ref()), base, &mut sources))
    } else {
        // What the parser guessed behind a syntax error would only cause more, wrong, complaints.
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let wrong = format!("this is not TOML: {}", error.message());
            document.report(at, "", Mistake::new(wrong, "Correct the syntax (https://toml.io)."));
        }
        None
    };
    let found = document.into_found();
    drop(table);
    Inspection { sources, file: file.to_owned(), text, found, config }
}

impl Inspection {
    /// The folders with plugins that could be read; `None` where the whole file couldn't.
    pub fn plugin_dirs(&self) -> Option<&[PathBuf]> {
        self.config.as_ref().map(|config| config.plugin_dirs.as_slice())
    }

    /// Whether no mistake was found yet.
    pub fn is_right(&self) -> bool {
        self.config.is_some() && self.found.is_empty()
    }

    /// Notes one more mistake of a source.
    pub fn report(&mut self, draft: &SourceDraft, part: Part<'_>, wrong: String, remedy: String) {
        let place = draft.place(part);
        self.found.report(&self.file, &self.text, place.at, &place.key, Mistake { wrong, remedy });
    }

    /// The configuration, if there is no mistake.
    ///
    /// # Errors
    /// Every mistake, in the order of the file.
    pub fn finish(self) -> Result<Config, Problems> {
        let problems = self.found.into_problems(&self.file);
        match self.config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

impl SourceDraft {
    /// Whether no mistake was found in a part; an absent one is right, but for the plugin.
    pub fn is_right(&self, part: Part<'_>) -> bool {
        let right = |mention: &Option<Mention>| mention.as_ref().is_none_or(|mention| mention.right);
        match part {
            Part::Plugin => self.plugin.as_ref().is_some_and(|mention| mention.right),
            Part::Isolation => right(&self.isolation),
            Part::Sha256 => right(&self.sha256),
            Part::Setting(_) | Part::SettingKey(_) => {
                self.settings.as_ref().is_none_or(|(mention, _)| mention.right)
            }
        }
    }

    /// Where a part stands, or what it would stand beside.
    fn place(&self, part: Part<'_>) -> Place {
        let or_whole =
            |mention: Option<&Mention>| mention.map_or_else(|| self.whole.clone(), |it| it.place.clone());
        match part {
            Part::Plugin => or_whole(self.plugin.as_ref()),
            Part::Isolation => or_whole(self.isolation.as_ref().or(self.plugin.as_ref())),
            Part::Sha256 => or_whole(self.sha256.as_ref().or(self.plugin.as_ref())),
            Part::Setting(pointer) | Part::SettingKey(pointer) => match &self.settings {
                None => Place { at: self.whole.at, key: walk::join(&self.whole.key, "settings") },
                Some((mention, tree)) => {
                    tree.place(&mention.place.key, pointer, matches!(part, Part::SettingKey(_)))
                }
            },
        }
    }
}

/// Where each value of a table stands: byte offsets, without the values.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    key: usize,
    value: usize,
    children: Children,
}

#[derive(Debug, Clone)]
enum Children {
    Table(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    None,
}

impl Tree {
    /// Of a value under a key. It goes as deep as the document, which the parser bounds.
    pub fn new(key: &Range<usize>, value: &Spanned<DeValue<'_>>) -> Self {
        let children = match value.get_ref() {
            DeValue::Table(table) => {
                let child = |(name, value): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)| {
                    (name.get_ref().to_string(), Tree::new(&name.span(), value))
                };
                Children::Table(table.iter().map(child).collect())
            }
            DeValue::Array(array) => {
                Children::Array(array.iter().map(|value| Tree::new(&value.span(), value)).collect())
            }
            _ => Children::None,
        };
        Self { key: key.start, value: walk::start(key, value), children }
    }

    /// The place of a JSON pointer (RFC 6901), or of the innermost value on the way to it that there is.
    fn place(&self, key: &str, pointer: &str, of_key: bool) -> Place {
        let (mut here, mut key) = (self, key.to_owned());
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &here.children {
                Children::Table(table) => table.iter().find(|(name, _)| *name == token).map(|(_, tree)| tree),
                Children::Array(array) => token.parse().ok().and_then(|number: usize| array.get(number)),
                Children::None => None,
            };
            let Some(next) = next else { break };
            key = match here.children {
                Children::Array(_) => format!("{key}[{token}]"),
                _ => walk::join(&key, &super::values::shortened(&token)),
            };
            here = next;
        }
        Place { at: if of_key { here.key } else { here.value }, key }
    }
}
