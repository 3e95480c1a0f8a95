//! The small files beside the configuration: secrets and certificates.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use recgate_plugin_api::{Error, ErrorCode};
use rustix::fs::OFlags;

/// Bytes that a secret may have.
const SECRET_MAX: u64 = 4096;

/// Reads a secret: the file without the line's end.
pub(super) fn secret(path: &Path, setting: &str) -> Result<String, Error> {
    let refused = |code, what: String| Error::new(code, format!("call_logd.{setting}: {path:?} {what}"));
    let (file, metadata) = open(path, setting)?;
    let mode = metadata.permissions().mode();
    if mode & 0o007 != 0 {
        let message =
            format!("is a secret that others may read (mode {:04o}); run chmod o= on it", mode & 0o7777);
        return Err(refused(ErrorCode::Permission, message));
    }
    let text = String::from_utf8(read(file, path, setting, SECRET_MAX)?).unwrap_or_default();
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains(char::is_control) {
        return Err(refused(ErrorCode::Invalid, "must have one line of text, the secret".to_owned()));
    }
    Ok(text.to_owned())
}

/// Reads a file of at most this many bytes.
pub(super) fn content(path: &Path, setting: &str, max: u64) -> Result<Vec<u8>, Error> {
    read(open(path, setting)?.0, path, setting, max)
}

fn open(path: &Path, setting: &str) -> Result<(File, Metadata), Error> {
    // Opening a pipe would wait for its writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    match opened {
        Ok((file, metadata)) if metadata.is_file() => Ok((file, metadata)),
        Ok(_) => {
            Err(Error::new(ErrorCode::Invalid, format!("call_logd.{setting}: {path:?} is no regular file")))
        }
        Err(error) => Err(unreadable(path, setting, &error)),
    }
}

fn read(file: File, path: &Path, setting: &str, max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let result = file.take(max.saturating_add(1)).read_to_end(&mut bytes);
    result.map_err(|error| unreadable(path, setting, &error))?;
    if bytes.len() as u64 > max {
        let message =
            format!("call_logd.{setting}: {path:?} has more than {max} bytes; is it the right file?");
        return Err(Error::new(ErrorCode::Invalid, message));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, setting: &str, error: &io::Error) -> Error {
    let (code, remedy) = match error.kind() {
        io::ErrorKind::PermissionDenied => (ErrorCode::Permission, " (let the gateway's user read it)"),
        _ => (ErrorCode::Unavailable, ""),
    };
    Error::new(code, format!("call_logd.{setting}: {path:?} can't be read{remedy}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::fs;

    use super::*;

    #[test]
    fn secrets_are_one_line_that_others_cannot_read() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("password");
        let write = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            secret(&path, "password_file")
        };
        assert_eq!(write("hunter2\n", 0o600).unwrap(), "hunter2");
        assert_eq!(write(" hunter2 \r\n", 0o640).unwrap(), " hunter2 ");
        for (text, mode) in [("hunter2\n", 0o644), ("", 0o600), ("\n", 0o600), ("hunter2\nhunter3\n", 0o600)]
        {
            let error = write(text, mode).unwrap_err();
            assert!(error.message.contains("password_file") && !error.message.contains("hunter"), "{error}");
        }
        assert_eq!(write(&"x".repeat(5000), 0o600).unwrap_err().code, ErrorCode::Invalid);
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(secret(&path, "password_file").unwrap_err().code, ErrorCode::Invalid);
        fs::remove_file(&path).unwrap();
        assert_eq!(secret(&path, "password_file").unwrap_err().code, ErrorCode::Unavailable);
    }
}
