//! The checks of a plugin's file, before anything of it runs.
//!
//! They are made on the opened file, and the library is then loaded from that same descriptor (see `plugin.rs`): what
//! was checked is what is loaded, whoever renames files meanwhile. What remains is that the owner (root or the
//! gateway's own user) writes into the file itself between check and load; both could replace the gateway as well.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use recgate_plugin_api::abi::{ABI_MAJOR, RgDescriptor};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::{LoadError, elf};

/// Bytes of a plugin's file, at most.
const FILE_MAX: u64 = 512 << 20;

/// A file that passed.
#[derive(Debug)]
pub(super) struct Checked {
    /// The file, opened for reading.
    pub(super) file: File,
    /// Absolute, without links.
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    /// Bytes.
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    pub(super) descriptor: RgDescriptor,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) licence: String,
}

/// Checks a file. With `folders`, it must lie directly in one of them.
pub(super) fn check(path: &Path, folders: Option<&[PathBuf]>) -> Result<Checked, LoadError> {
    let io_error = |e: &io::Error| LoadError::Io { path: path.to_owned(), detail: e.to_string() };
    let path = path.canonicalize().map_err(|e| io_error(&e))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Some(folders) = folders
        && !folders.iter().any(|allowed| allowed.canonicalize().is_ok_and(|allowed| allowed == folder))
    {
        return Err(LoadError::Outside { path, folders: folders.to_vec() });
    }
    // Not blocking, as it may be a pipe; what it is shows only afterwards.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = flags.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(|e| io_error(&e))?;
    let metadata = file.metadata().map_err(|e| io_error(&e))?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile(path));
    }
    if metadata.len() > FILE_MAX {
        return Err(LoadError::TooLarge { path, size: metadata.len(), most: FILE_MAX });
    }
    let descriptor = elf::descriptor(&file).map_err(|problem| match problem {
        elf::Problem::NotALibrary(detail) => LoadError::NotALibrary { path: path.clone(), detail },
        elf::Problem::Missing(symbol) => LoadError::NotAPlugin { path: path.clone(), symbol },
        elf::Problem::Descriptor(detail) => LoadError::Descriptor { path: path.clone(), detail },
    })?;
    let folder_metadata = folder.metadata().map_err(|e| io_error(&e))?;
    check_owner(&path, &metadata)?;
    check_owner(folder, &folder_metadata)?;
    let wrong = |detail: String| LoadError::Descriptor { path: path.clone(), detail };
    let name = text(&descriptor.name, "name").map_err(wrong)?;
    if descriptor.abi_major != ABI_MAJOR {
        let (major, minor) = (descriptor.abi_major, descriptor.abi_minor);
        return Err(LoadError::AbiMajor { path, major, minor });
    }
    if !is_name(&name) {
        let detail = format!("its name {name:?} isn't [a-z][a-z0-9_-]{{0,31}}");
        return Err(wrong(detail));
    }
    let version = text(&descriptor.version, "version").map_err(wrong)?;
    let licence = text(&descriptor.licence, "licence").map_err(wrong)?;
    let sha256 = hash(&file).map_err(|e| io_error(&e))?;
    let identity = (metadata.dev(), metadata.ino());
    Ok(Checked { file, identity, size: metadata.len(), sha256, descriptor, name, version, licence, path })
}

/// `[a-z][a-z0-9_-]{0,31}`
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 32
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    let own = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    if owner != 0 && owner != own {
        return Err(LoadError::Owner { path: path.to_owned(), owner, own });
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(LoadError::Writable { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

/// A text of the descriptor: printable ASCII, filled up with zero bytes.
fn text(bytes: &[u8], field: &str) -> Result<String, String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    let printable = text.iter().all(|byte| (0x20..0x7f).contains(byte));
    if text.is_empty() || !printable || rest.iter().any(|byte| *byte != 0) {
        return Err(format!("its {field} is empty or isn't printable ASCII filled up with zero bytes"));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn hash(mut file: &File) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(buffer.get(..got).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names() {
        for good in ["a", "wazo", "s3", "archive-8x8_2", &"a".repeat(32)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "3s", "-a", "Wazo", "a b", "ä", "a/b", &"a".repeat(33)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn texts_of_the_descriptor() {
        assert_eq!(text(b"ab\0\0", "name").unwrap(), "ab");
        assert_eq!(text(b"abcd", "name").unwrap(), "abcd");
        for bad in [&b"\0\0"[..], b"a\0b", b"a\nb\0", b"\xc3\xa4\0"] {
            assert!(text(bad, "name").unwrap_err().contains("its name"));
        }
    }
}
