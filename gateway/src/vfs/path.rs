//! Paths as clients spell them, parsed once at the edge.

use std::fmt;

/// An absolute, normal path of the tree: no empty, `.` or `..` segment, no NUL, no slash in a segment.
///
/// `..` at the root stays at the root, as in POSIX: there is no way out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VPath {
    segments: Vec<String>,
}

/// Why bytes are no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than 4096 bytes.
    #[error("the path is longer than 4096 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// Holds a control character.
    #[error("the path holds a control character")]
    ControlCharacter,
}

impl VPath {
    /// The longest path in bytes that is taken (PATH_MAX of Linux).
    pub const MAX_BYTES: usize = 4096;

    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path, relative ones from `base`.
    pub fn parse(base: &VPath, text: &[u8]) -> Result<Self, PathError> {
        if text.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|_| PathError::NotUtf8)?;
        if text.chars().any(char::is_control) {
            return Err(PathError::ControlCharacter);
        }
        let mut path = if text.starts_with('/') { Self::root() } else { base.clone() };
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    path.segments.pop();
                }
                name => path.segments.push(name.to_owned()),
            }
        }
        Ok(path)
    }

    /// The names from the root down.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }
}

impl fmt::Display for VPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.segments {
            write!(f, "/{segment}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn parse(base: &str, text: &str) -> String {
        let base = VPath::parse(&VPath::root(), base.as_bytes()).unwrap();
        VPath::parse(&base, text.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn spellings_of_a_path() {
        assert_eq!(parse("/", ""), "/");
        assert_eq!(parse("/S20160606", ""), "/S20160606");
        assert_eq!(parse("/S20160606", "../Index/./I20160606.csv"), "/Index/I20160606.csv");
        assert_eq!(parse("/a/b", "//x///y/"), "/x/y");
        assert_eq!(parse("/a", "../../../../etc"), "/etc");
        assert_eq!(parse("/", "..."), "/...");
    }

    #[test]
    fn what_is_no_path() {
        let parse = |text: &[u8]| VPath::parse(&VPath::root(), text);
        assert_eq!(parse(b"a\nb"), Err(PathError::ControlCharacter));
        assert_eq!(parse(b"a\0"), Err(PathError::ControlCharacter));
        assert_eq!(parse("a\u{85}".as_bytes()), Err(PathError::ControlCharacter));
        assert_eq!(parse(b"\xff"), Err(PathError::NotUtf8));
        assert_eq!(parse(&[b'a'; VPath::MAX_BYTES + 1]), Err(PathError::TooLong));
    }

    proptest! {
        #[test]
        fn a_path_is_absolute_and_normal(base in "(/?(\\.{0,3}|[a-c]{0,2})){0,6}", text in "(/?(\\.{0,3}|[a-c]{0,2})){0,8}") {
            let base = VPath::parse(&VPath::root(), base.as_bytes()).unwrap();
            let path = VPath::parse(&base, text.as_bytes()).unwrap();
            for segment in path.segments() {
                prop_assert!(!matches!(segment.as_str(), "" | "." | "..") && !segment.contains('/'));
            }
            // Its own spelling means the same from anywhere.
            prop_assert_eq!(VPath::parse(&base, path.to_string().as_bytes()).unwrap(), path);
        }

        #[test]
        fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = VPath::parse(&VPath::root(), &bytes);
        }
    }
}
