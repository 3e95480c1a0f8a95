//! Finds plugins, and decides which may be loaded.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Serialize, Serializer};

use super::{
    LoadError,
    check::{self, Checked},
    plugin::Plugin,
};

/// The folders with plugins.
#[derive(Debug, Clone)]
pub struct Plugins {
    own_dir: Option<PathBuf>,
    dirs: Vec<PathBuf>,
}

/// How far the configuration trusts a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trust {
    /// It may run in the gateway's process although it isn't one of the gateway's own.
    pub in_process: bool,
    /// SHA-256 that its file must have.
    pub sha256: Option<[u8; 32]>,
}

/// A file in one of the folders.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it lies.
    pub path: PathBuf,
    /// It lies beside the gateway's executable.
    pub own: bool,
    /// What it is, or why it would be refused.
    pub result: Result<PluginInfo, LoadError>,
}

/// What a plugin says of itself, and what its file is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginInfo {
    /// As configurations spell it.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// SPDX licence expression.
    pub licence: String,
    /// Major and minor of the ABI that it is built for.
    pub abi: (u32, u32),
    /// Absolute, without links.
    pub path: PathBuf,
    /// SHA-256 of the file; in hex where this is serialised.
    #[serde(serialize_with = "as_hex")]
    pub sha256: [u8; 32],
    /// Bytes of the file.
    pub size: u64,
    /// JSON Schema of its configuration; `None` where the plugin was not run to ask for it.
    pub schema: Option<serde_json::Value>,
}

/// What is loaded, for the life of the process: a library is never unloaded, and never loaded twice.
static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

struct Loaded {
    path: PathBuf,
    identity: (u64, u64),
    sha256: [u8; 32],
    /// A failure is kept too: its library is in the process all the same.
    result: Result<Arc<Plugin>, LoadError>,
}

impl Plugins {
    /// `own_dir` is the folder of the gateway's executable, whose plugins are the gateway's own; `dirs` are others.
    /// Only the folders themselves are searched, not what lies below.
    pub fn new(own_dir: Option<PathBuf>, dirs: Vec<PathBuf>) -> Self {
        Self { own_dir, dirs }
    }

    /// Every plugin in the folders, and every file that looks like one and is refused. Nothing is run.
    ///
    /// A library beside the executable that isn't a plugin is left out; in the other folders it is reported.
    pub fn list(&self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for folder in self.folders() {
            let entries = match libraries(&folder) {
                Ok(entries) => entries,
                Err(e) => {
                    let own = self.is_own_folder(&folder);
                    found.push(Found { path: folder, own, result: Err(e) });
                    continue;
                }
            };
            for path in entries {
                if found.iter().any(|other| same_file(&other.path, &path)) {
                    continue;
                }
                let own = self.is_own_folder(&folder);
                let result = check::check(&path, Some(&self.folders())).map(|checked| info(&checked));
                let foreign =
                    matches!(result, Err(LoadError::NotAPlugin { .. } | LoadError::NotALibrary { .. }));
                if !(own && foreign) {
                    found.push(Found { path, own, result });
                }
            }
        }
        refuse_duplicates(&mut found);
        found
    }

    /// Loads a plugin, wherever it lies, and asks it what it is. All checks are made but that for its folder.
    ///
    /// This runs the plugin's code: it blocks, for 20 seconds at most.
    ///
    /// # Errors
    ///
    /// The check that failed.
    pub fn inspect(&self, path: &Path) -> Result<PluginInfo, LoadError> {
        let plugin = load_checked(check::check(path, None)?)?;
        let mut info = plugin.info().clone();
        info.schema = Some(plugin.schema().clone());
        Ok(info)
    }

    /// Loads a plugin by its name or its absolute path. One that is loaded already is given again.
    ///
    /// This runs the plugin's code: it blocks, for 20 seconds at most.
    ///
    /// # Errors
    ///
    /// The check that failed.
    pub fn load(&self, name_or_path: &str, trust: Trust) -> Result<Arc<Plugin>, LoadError> {
        let path = if check::is_name(name_or_path) {
            self.find(name_or_path)?
        } else if Path::new(name_or_path).is_absolute() {
            PathBuf::from(name_or_path)
        } else {
            return Err(LoadError::Relative(name_or_path.to_owned()));
        };
        let checked = check::check(&path, Some(&self.folders()))?;
        if let Some(expected) = trust.sha256
            && expected != checked.sha256
        {
            let (expected, actual) = (check::hex(&expected), check::hex(&checked.sha256));
            return Err(LoadError::Pin { path: checked.path, expected, actual });
        }
        let own = checked.path.parent().is_some_and(|folder| self.is_own_folder(folder));
        if !own && !trust.in_process {
            return Err(LoadError::Isolation(checked.path));
        }
        load_checked(checked)
    }

    fn find(&self, name: &str) -> Result<PathBuf, LoadError> {
        let mut refused = Vec::new();
        for found in self.list() {
            match found.result {
                Ok(info) if info.name == name => return Ok(info.path),
                Err(LoadError::Duplicate { name: duplicate, first, second }) if duplicate == name => {
                    return Err(LoadError::Duplicate { name: duplicate, first, second });
                }
                Err(e) => refused.push(e.to_string()),
                Ok(_) => {}
            }
        }
        Err(LoadError::NotFound { wanted: name.to_owned(), searched: self.folders(), refused })
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.own_dir.iter().chain(&self.dirs).cloned().collect()
    }

    fn is_own_folder(&self, folder: &Path) -> bool {
        self.own_dir.as_deref().is_some_and(|own| same_file(own, folder))
    }
}

/// The `.so` files of a folder, by name.
fn libraries(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let io_error = |e: std::io::Error| LoadError::Io { path: folder.to_owned(), detail: e.to_string() };
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        if path.extension().is_some_and(|extension| extension == "so") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Turns plugins of one name into refusals: which of them is meant, only a person can say.
fn refuse_duplicates(found: &mut [Found]) {
    let named: Vec<(String, PathBuf)> = found
        .iter()
        .filter_map(|found| found.result.as_ref().ok())
        .map(|info| (info.name.clone(), info.path.clone()))
        .collect();
    for found in found {
        let Ok(info) = &found.result else { continue };
        let other = named.iter().find(|(name, path)| *name == info.name && *path != info.path);
        if let Some((name, other)) = other {
            let (first, second) = (info.path.clone(), other.clone());
            found.result = Err(LoadError::Duplicate { name: name.clone(), first, second });
        }
    }
}

fn info(checked: &Checked) -> PluginInfo {
    PluginInfo {
        name: checked.name.clone(),
        version: checked.version.clone(),
        licence: checked.licence.clone(),
        abi: (checked.descriptor.abi_major, checked.descriptor.abi_minor),
        path: checked.path.clone(),
        sha256: checked.sha256,
        size: checked.size,
        schema: None,
    }
}

fn load_checked(checked: Checked) -> Result<Arc<Plugin>, LoadError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = |loaded: &&Loaded| loaded.path == checked.path || loaded.identity == checked.identity;
    if let Some(known) = loaded.iter().find(known) {
        if known.identity != checked.identity || known.sha256 != checked.sha256 {
            return Err(LoadError::Changed(checked.path));
        }
        return known.result.clone();
    }
    let info = info(&checked);
    let (path, identity, sha256) = (checked.path.clone(), checked.identity, checked.sha256);
    let result = Plugin::load(checked, info).map(Arc::new);
    loaded.push(Loaded { path, identity, sha256, result: result.clone() });
    result
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&check::hex(bytes))
}
