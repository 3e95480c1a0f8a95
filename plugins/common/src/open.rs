//! Reading exactly one version of a file.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use recgate_plugin_api::{Call, Error, ErrorCode};

use crate::folder::{self, Regular, Stamp};

/// An open recording: exactly the version that was asked for, or reads fail.
#[derive(Debug)]
pub struct OpenFile {
    id: String,
    file: File,
    stamp: Stamp,
}

impl OpenFile {
    /// The recording of this id in this version.
    ///
    /// # Errors
    /// `Precondition` where the file has another version.
    pub fn new(id: &str, version: &str, regular: Regular) -> Result<Self, Error> {
        regular.stamp.expect(id, version)?;
        Ok(Self { id: id.to_owned(), file: regular.file, stamp: regular.stamp })
    }

    /// Fills `buf` from `offset`, short only at the end, and says how many bytes that were.
    ///
    /// The version is checked again after the bytes are there, so that a file that was written over or cut while
    /// it was read gives `Precondition`, never a mixture of two versions.
    ///
    /// # Errors
    /// `Range` beyond the end, `Cancelled`, `Precondition`, `Corrupt` where the storage gives less than it says it has,
    /// and those of the operating system.
    pub fn read_at(&self, call: &dyn Call, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let size = self.stamp.size;
        let Some(left) = size.checked_sub(offset) else {
            let message = format!("offset {offset} is beyond the {size} bytes of recording {:?}", self.id);
            return Err(Error::new(ErrorCode::Range, message));
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..wanted).unwrap_or_default();
        let failed = |error| folder::io_error(&error, format!("recording {:?} can't be read", self.id));

        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            match self.file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let now = Stamp::of(&self.file.metadata().map_err(failed)?);
        now.expect(&self.id, &self.stamp.version())?;
        if filled < wanted {
            let message =
                format!("recording {:?} ended at {filled} of {wanted} bytes from {offset}", self.id);
            return Err(Error::new(ErrorCode::Corrupt, message));
        }
        Ok(filled)
    }
}

/// The error of a call that the gateway wants to end.
pub fn cancelled() -> Error {
    Error::new(ErrorCode::Cancelled, "the gateway has cancelled the call")
}
