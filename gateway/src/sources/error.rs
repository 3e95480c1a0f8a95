//! Why a plugin was refused.

use std::path::PathBuf;

use recgate_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};

/// Why a plugin was refused: which check failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No file of this name or path.
    #[error("there is no plugin {wanted:?} in {}{}", list(.searched), refused_note(.refused))]
    NotFound {
        /// As it was asked for.
        wanted: String,
        /// The folders that were searched.
        searched: Vec<PathBuf>,
        /// Files there that were refused, and why: the wanted one may be among them.
        refused: Vec<String>,
    },
    /// Two files call themselves the same.
    #[error(
        "two plugins are named {name:?}: {} and {}; remove one, or configure the path instead of the name",
        .first.display(), .second.display()
    )]
    Duplicate {
        /// The name.
        name: String,
        /// The one that was found first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A path with a slash that isn't absolute.
    #[error("{0:?} is neither a plugin's name nor an absolute path; write one of them")]
    Relative(String),
    /// Outside of the folders for plugins.
    #[error(
        "{}: lies in none of the folders for plugins ({}); move it there, or add its folder to `plugin_dirs`",
        .path.display(), list(.folders)
    )]
    Outside {
        /// The file, after all links.
        path: PathBuf,
        /// The folders for plugins.
        folders: Vec<PathBuf>,
    },
    /// A folder, a pipe or the like.
    #[error("{}: is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Larger than any plugin.
    #[error("{}: has {size} bytes, more than the {most} that a plugin may have", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What is allowed.
        most: u64,
    },
    /// The file or its folder belongs to somebody else.
    #[error(
        "{}: belongs to user {owner}; a plugin and its folder must belong to root or to the gateway's own user \
         ({own}), so that nobody else can change what runs in the gateway: chown it", .path.display()
    )]
    Owner {
        /// The file or its folder.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
        /// The gateway's user.
        own: u32,
    },
    /// Others may write to the file or its folder.
    #[error(
        "{}: may be written by others (mode {mode:04o}); run `chmod o-w` on it", .path.display()
    )]
    Writable {
        /// The file or its folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a shared library for this machine.
    #[error("{}: is no shared library that this machine can load: {detail}", .path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// One of the two symbols is missing.
    #[error(
        "{}: doesn't export `{symbol}`, so it is not a recgate plugin (or its symbols are hidden: see RG_EXPORT in \
         recgate_plugin.h)", .path.display()
    )]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// The first symbol that is missing.
        symbol: &'static str,
    },
    /// The descriptor isn't one.
    #[error("{}: its descriptor is wrong: {detail}; build it anew with the current SDK or header", .path.display())]
    Descriptor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Built for another major version of the ABI.
    #[error(
        "{}: is built for plugin ABI {major}.{minor}, and this gateway speaks {ABI_MAJOR}.{ABI_MINOR}: the majors \
         must be the same; install the plugin's build for this gateway", .path.display()
    )]
    AbiMajor {
        /// The file.
        path: PathBuf,
        /// Its major.
        major: u32,
        /// Its minor.
        minor: u32,
    },
    /// Not the file that was pinned.
    #[error(
        "{}: its SHA-256 is {actual}, and the configuration pins {expected}; put the right file there, or pin the \
         new one after you have made sure where it comes from", .path.display()
    )]
    Pin {
        /// The file.
        path: PathBuf,
        /// What the configuration says, in hex.
        expected: String,
        /// What the file has, in hex.
        actual: String,
    },
    /// Not one of the gateway's own, and not explicitly trusted.
    #[error(
        "{}: is not one of the gateway's own plugins, which lie beside its executable; it would run inside the \
         gateway's process. If you trust it that far, set `isolation = \"in-process\"` for the source", .0.display()
    )]
    Isolation(PathBuf),
    /// The file has changed since it was loaded.
    #[error(
        "{}: has changed since it was loaded; a loaded plugin is never unloaded, so restart the gateway to use the \
         new file", .0.display()
    )]
    Changed(PathBuf),
    /// The dynamic linker refuses.
    #[error("{}: can't be loaded: {detail}", .path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// What the linker said.
        detail: String,
    },
    /// `rg_plugin_init` failed.
    #[error("{}: refuses to start: {detail}", .path.display())]
    Init {
        /// The file.
        path: PathBuf,
        /// Its error.
        detail: String,
    },
    /// The table of functions is incomplete.
    #[error("{}: its table lacks `{function}`, which every plugin must have", .path.display())]
    MissingFunction {
        /// The file.
        path: PathBuf,
        /// The function that is NULL.
        function: &'static str,
    },
    /// The schema can't be used.
    #[error("{}: its configuration schema is wrong: {detail}", .path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Reading a file or folder failed.
    #[error("{}: {detail}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        detail: String,
    },
}

fn list(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "no folder at all".to_owned();
    }
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn refused_note(refused: &[String]) -> String {
    if refused.is_empty() {
        return String::new();
    }
    format!("; these files there were refused: {}", refused.join("; "))
}
