//! Files that the configuration names: read within bounds, and only where nobody else could have read or
//! changed them.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use super::problems::Mistake;

/// Who must be kept from a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Others may not even read it.
    Secret,
    /// Others may not write it.
    Trusted,
}

/// Reads a text file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64, privacy: Privacy) -> Result<String, Mistake> {
    // A fuzzer invents paths, and some (pipes, devices) mustn't even be opened: its files hold their own names.
    if cfg!(fuzzing) {
        return Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "Correct the path, which is relative to the configuration file's folder.",
            ErrorKind::PermissionDenied => "Let the gateway's user read it, for example by its group.",
            _ => "Make it readable for the gateway's user.",
        };
        Mistake::new(format!("{shown} can't be read: {error}"), remedy)
    };
    // Opening a pipe would wait for somebody to write into it. To a file the flag makes no difference.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Mistake::new(format!("{shown} is no file"), "Name a file."));
    }
    let mode = metadata.permissions().mode();
    if privacy == Privacy::Secret && mode & 0o007 != 0 {
        return Err(Mistake::new(
            format!("{shown} is a secret that others may read (mode {:04o})", mode & 0o7777),
            format!("Run `chmod o= {shown}`, and renew the secret if it was exposed."),
        ));
    }
    if mode & 0o002 != 0 {
        return Err(Mistake::new(
            format!("{shown} may be changed by everybody (mode {:04o})", mode & 0o7777),
            format!("Run `chmod o-w {shown}`."),
        ));
    }
    if metadata.size() > most {
        return Err(Mistake::new(
            format!("{shown} has {} bytes", metadata.size()),
            format!("Name a file of at most {most} bytes."),
        ));
    }
    let mut text = String::new();
    // A file that grows meanwhile is cut at the bound instead of filling the memory.
    file.take(most).read_to_string(&mut text).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => Mistake::new(format!("{shown} is not UTF-8 text"), "Name a text file."),
        _ => unreadable(error),
    })?;
    Ok(text)
}

/// Whether a path is a folder.
pub(super) fn folder(path: &Path) -> Result<(), Mistake> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Mistake::new(format!("{} is no folder", path.display()), "Name a folder.")),
        Err(error) => Err(Mistake::new(
            format!("{} can't be looked into: {error}", path.display()),
            "Make the folder, or correct the path, which is relative to the configuration file's folder.",
        )),
    }
}
