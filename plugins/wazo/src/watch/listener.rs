//! What the kernel tells of the folders: inotify, through rustix, which the plugin has anyway and which keeps it free of
//! `unsafe`; the crate `inotify` would add another wrapper of the same four calls.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recgate_plugin_api::{Error, ErrorCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::folder::{self, Folder};
use crate::settings::Settings;

/// Events that are taken at once: some 40 bytes each are held, by name.
const EVENTS_AT_ONCE: usize = 10_000;
/// Bytes that one read of the kernel may fill: some hundred events.
const BUFFER: usize = 16 * 1024;

/// Which folder a file lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// `root`
    Recordings,
    /// `cdr_dir`
    Records,
}

/// What has happened to a file, as far as it matters now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Its content was changed, or it has appeared or gone.
    pub(super) written: bool,
    /// It has gone.
    pub(super) gone: bool,
    /// Its writer has closed it, or it was moved here, and nothing was written since.
    pub(super) closed: bool,
}

/// What was heard in one turn.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) files: BTreeMap<(Place, OsString), Change>,
    /// The kernel had more to tell than it could keep.
    pub(super) lost: bool,
}

/// Listens to the folders of an instance.
pub(super) struct Listener {
    inotify: OwnedFd,
    folders: Vec<Watched>,
}

struct Watched {
    place: Place,
    path: PathBuf,
    number: i32,
    identity: (u64, u64),
}

/// Says on which kind of network a folder lies, if on one.
pub(super) type Network = dyn Fn(&Folder) -> Result<Option<&'static str>, Error>;

impl Place {
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Recordings => "root",
            Self::Records => "cdr_dir",
        }
    }
}

impl Listener {
    /// Begins to listen. Hands over what of the folders can't be listened to, for the operator.
    ///
    /// # Errors
    /// `Unsupported` where none of the folders can be listened to, `Busy` where the kernel's limits are reached, and
    /// those of opening the folders.
    pub(super) fn open(settings: &Settings, network: &Network) -> Result<(Self, Vec<String>), Error> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| refused(errno, "inotify can't be opened"))?;
        let mut listener = Self { inotify, folders: Vec::new() };
        let mut deaf = Vec::new();
        let records = settings.cdr_dir.as_deref().map(|path| (Place::Records, path));
        for (place, path) in [(Place::Recordings, settings.root.as_path())].into_iter().chain(records) {
            let opened = Folder::open(path, place.setting())?;
            match network(&opened)? {
                Some(network) => deaf.push(format!(
                    "{}: {path:?} lies on {network}, which doesn't announce what others change there",
                    place.setting()
                )),
                None => listener.add(place, path, &opened)?,
            }
        }
        if listener.folders.is_empty() {
            return Err(Error::new(ErrorCode::Unsupported, deaf.join("; ")));
        }
        Ok((listener, deaf))
    }

    fn add(&mut self, place: Place, path: &Path, opened: &Folder) -> Result<(), Error> {
        let events = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        let number = inotify::add_watch(&self.inotify, path, events)
            .map_err(|errno| refused(errno, &format!("{}: {path:?} can't be watched", place.setting())))?;
        let identity = opened.identity()?;
        self.folders.push(Watched { place, path: path.to_owned(), number, identity });
        // Whatever took its place between the two would go unnoticed.
        self.check()
    }

    /// Whether the folders are still those that are listened to: another disk may have been mounted over one.
    pub(super) fn check(&self) -> Result<(), Error> {
        for watched in &self.folders {
            if Folder::open(&watched.path, watched.place.setting())?.identity()? != watched.identity {
                return Err(replaced(watched));
            }
        }
        Ok(())
    }

    /// Waits until there is something to read, at most so long. Says whether there is.
    pub(super) fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(refused(errno, "inotify can't be waited for")),
        }
    }

    /// Takes what there is to read, without waiting.
    ///
    /// # Errors
    /// `Unavailable` where a folder was moved, deleted or unmounted.
    pub(super) fn read(&self) -> Result<News, Error> {
        let mut news = News::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut taken = 0_usize;
        // What the buffer holds is lost unless it is taken.
        while taken < EVENTS_AT_ONCE || !reader.is_buffer_empty() {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(refused(errno, "inotify can't be read")),
            };
            taken = taken.saturating_add(1);
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                news.lost = true;
                continue;
            }
            for watched in self.folders.iter().filter(|watched| watched.number == event.wd()) {
                let ends =
                    ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
                if what.intersects(ends) {
                    return Err(replaced(watched));
                }
                let Some(name) = event.file_name().filter(|_| !what.contains(ReadFlags::ISDIR)) else {
                    continue;
                };
                let name = OsString::from_vec(name.to_bytes().to_vec());
                news.files.entry((watched.place, name)).or_default().add(what);
            }
        }
        Ok(news)
    }
}

impl Change {
    fn add(&mut self, what: ReadFlags) {
        let gone = ReadFlags::DELETE | ReadFlags::MOVED_FROM;
        if what.intersects(ReadFlags::CREATE | ReadFlags::MODIFY | ReadFlags::MOVED_TO | gone) {
            *self = Self { written: true, gone: what.intersects(gone), closed: false };
        }
        if what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
            self.closed = true;
        }
    }
}

fn replaced(watched: &Watched) -> Error {
    let (setting, path) = (watched.place.setting(), &watched.path);
    let message = format!(
        "{setting}: folder {path:?} was moved, deleted, unmounted or replaced; it is watched again once it is there"
    );
    Error::new(ErrorCode::Unavailable, message)
}

fn refused(errno: Errno, tried: &str) -> Error {
    let remedy = match errno {
        Errno::MFILE => " (raise fs.inotify.max_user_instances, or the limit of open files)",
        Errno::NOSPC => " (raise fs.inotify.max_user_watches)",
        _ => "",
    };
    let mut error = folder::io_error(&io::Error::from(errno), format!("{tried}{remedy}"));
    if errno == Errno::NOSPC {
        error.code = ErrorCode::Busy;
    }
    error
}
