//! Reading a folder without ever leaving it.
//!
//! A folder is opened by its configured path anew for each call, so that a disk that is unmounted is seen, and one
//! that is mounted again is used. From there on only names of one component are opened, relative to a folder's
//! descriptor and without following links, so no name and no link leads out of it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use recgate_plugin_api::{Error, ErrorCode};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

const NANOS_PER_MS: i128 = 1_000_000;

/// File systems on which the kernel doesn't learn what others change (Linux, `statfs(2)` and `include/uapi/linux/magic.h`).
const NETWORKS: [(u32, &str); 12] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    dir: Dir,
    /// For messages: the setting that names it, or the path from there.
    setting: String,
}

/// A regular file in a folder, open for reading.
#[derive(Debug)]
pub struct Regular {
    /// For reading.
    pub file: File,
    /// As it was when the file was opened.
    pub stamp: Stamp,
}

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Modification time, Unix nanoseconds.
    pub mtime_ns: i128,
    /// Time of the last change of content or attributes, Unix nanoseconds; nobody can set it.
    ctime_ns: i128,
    /// When the file was made, Unix milliseconds, where the file system knows.
    pub born_ms: Option<i64>,
    /// Bytes.
    pub size: u64,
}

impl Folder {
    /// Opens the folder of a setting.
    ///
    /// # Errors
    /// `Permission` where access is refused, `Busy` where descriptors have run out, `Unavailable` for all else: a
    /// folder that is not there is a disk that is not mounted until the operator says otherwise.
    pub fn open(path: &Path, setting: &'static str) -> Result<Self, Error> {
        match Dir::open_ambient_dir(path, ambient_authority()) {
            Ok(dir) => Ok(Self { dir, setting: setting.to_owned() }),
            Err(error) => {
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => "let the gateway's user read and enter it",
                    io::ErrorKind::NotFound => "check that its disk is mounted and the path is right",
                    _ => "check the path and its disk",
                };
                let mut told =
                    io_error(&error, format!("{setting}: folder {path:?} can't be opened ({remedy})"));
                if told.code == ErrorCode::NotFound {
                    told.code = ErrorCode::Unavailable;
                }
                Err(told)
            }
        }
    }

    /// Opens a folder in this one. `None` where there is none, or what is there is not a folder: a link to one, too.
    ///
    /// # Errors
    /// `Permission`, `Busy`, `Unavailable`.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, Error> {
        let name = name.as_ref();
        if !is_one_component(name) {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(descriptor) => {
                let setting = format!("{}/{}", self.setting, name.display());
                Ok(Some(Self { dir: Dir::from_std_file(File::from(descriptor)), setting }))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
            Err(errno) => {
                let mut message = format!("{}: folder {name:?} can't be opened", self.setting);
                if errno == Errno::ACCESS {
                    message.push_str(" (let the gateway's user read and enter it)");
                }
                Err(io_error(&errno.into(), message))
            }
        }
    }

    /// Looks whether the folder can be listed and its files reached.
    pub fn probe(&self) -> Result<(), Error> {
        if let Some(first) = self.entries()?.next() {
            first?;
        }
        match rustix::fs::statat(&self.dir, ".", AtFlags::empty()) {
            Ok(_) => Ok(()),
            Err(errno) => Err(io_error(
                &errno.into(),
                format!(
                    "{}: the folder can be listed but not entered (it lacks the x permission)",
                    self.setting
                ),
            )),
        }
    }

    /// Device and inode: whether it is the same folder as another.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        let stat = rustix::fs::fstat(&self.dir).map_err(|errno| {
            io_error(&errno.into(), format!("{}: the folder can't be seen", self.setting))
        })?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The name of its file system where that is one that others may change over a network.
    pub fn network(&self) -> Result<Option<&'static str>, Error> {
        let stat = rustix::fs::fstatfs(&self.dir).map_err(|errno| {
            io_error(&errno.into(), format!("{}: its file system can't be asked what it is", self.setting))
        })?;
        Ok(network_name(i128::from(stat.f_type)))
    }

    /// The names in the folder, in no order, as a stream.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<OsString, Error>> + '_, Error> {
        let failed = |error: io::Error| {
            let mut told = io_error(&error, format!("{}: the folder can't be listed", self.setting));
            if told.code == ErrorCode::NotFound {
                told.code = ErrorCode::Unavailable;
            }
            told
        };
        let entries = self.dir.entries().map_err(failed)?;
        Ok(entries.map(move |entry| entry.map(|entry| entry.file_name()).map_err(failed)))
    }

    /// Opens a file for reading. `None` where there is none, or what is there is not a regular file: a link, a
    /// pipe, a socket, a device, a folder.
    pub fn file(&self, name: impl AsRef<OsStr>) -> Result<Option<Regular>, Error> {
        let name = name.as_ref();
        if !is_one_component(name) {
            return Ok(None);
        }
        // Looked at first, because already opening a pipe or a device can have effects.
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            Ok(_) => return Ok(None),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(self.refused(name, errno.into())),
        }
        // Between the two calls it may become something else: hence no link, no waiting, and a second look.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(self.refused(name, errno.into())),
        };
        let metadata = file.metadata().map_err(|error| self.refused(name, error))?;
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(Regular { stamp: Stamp::of(&metadata), file }))
    }

    fn refused(&self, name: &OsStr, error: io::Error) -> Error {
        let mut message = format!("{}: file {name:?} can't be opened", self.setting);
        if error.kind() == io::ErrorKind::PermissionDenied {
            message.push_str(" (let the gateway's user read it)");
        }
        io_error(&error, message)
    }
}

impl Stamp {
    /// What the file's attributes tell.
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            mtime_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
            born_ms: born.and_then(|since| i64::try_from(since.as_millis()).ok()),
            size: metadata.len(),
        }
    }

    /// The version of the content: `<modification time in nanoseconds>-<size>`. The inode is no part of it, so
    /// that a folder restored from a backup has the same versions.
    pub fn version(&self) -> String {
        format!("{}-{}", self.mtime_ns, self.size)
    }

    /// When the content last changed, Unix milliseconds.
    ///
    /// A write moves both times, so the content is never newer than the older of them; a modification time that
    /// was set into the future (by a copy from a machine whose clock is wrong) is seen through that way.
    pub fn changed_ms(&self) -> i64 {
        let ms = self.mtime_ns.min(self.ctime_ns).div_euclid(NANOS_PER_MS);
        i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
    }

    /// `Precondition` where this is not the version asked for.
    pub fn expect(&self, id: &str, version: &str) -> Result<(), Error> {
        let now = self.version();
        if now == version { Ok(()) } else { Err(changed(id, version, &now)) }
    }
}

/// The error that a recording has another version by now.
pub fn changed(id: &str, asked: &str, now: &str) -> Error {
    let message = format!("recording {id:?} has changed: version {asked:?} was asked for, it is {now:?} now");
    Error::new(ErrorCode::Precondition, message)
}

/// An error of the ABI from one of the operating system, with what was tried.
pub fn io_error(error: &io::Error, tried: impl fmt::Display) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::PermissionDenied => ErrorCode::Permission,
        _ => match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => ErrorCode::Busy,
            _ => ErrorCode::Unavailable,
        },
    };
    Error::new(code, format!("{tried}: {error}"))
}

/// The name of a file system that others may change over a network, by what `statfs` says that it is.
pub fn network_name(magic: i128) -> Option<&'static str> {
    NETWORKS.iter().find(|(known, _)| i128::from(*known) == magic).map(|(_, name)| *name)
}

fn is_one_component(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0)
}

fn nanos(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}
