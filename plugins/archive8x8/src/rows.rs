//! Index files, read as streams of rows.
//!
//! They are CSV with a header line, written by one program or saved anew by another: with commas, semicolons or tabs,
//! CRLF or LF, a byte order mark or none. One row at a time is held, and none is longer than a MiB: a quote that is
//! never closed must not make a row of the rest of the file.

use std::io::{self, BufRead, BufReader, Read};

use csv::{ByteRecord, ReaderBuilder};
use recgate_plugin_api::Error;

use crate::columns::{Column, Columns, Row};

/// Bytes of a row.
const ROW_MAX: usize = 1 << 20;
/// Bytes of a file that are looked at to tell its separator.
const HEAD: usize = 64 << 10;

/// Takes the rows, each with its number from 1.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(u64, Row<'_>) -> Result<(), Error>;

/// Why reading ended before the end of the file.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The file can't be used from here on: what is wrong with it.
    Broken(String),
    /// Reading it failed.
    Io(io::Error),
    /// The sink wanted no more.
    Stopped(Error),
}

/// Reads an index file; `noticed` is told of headers that are not used.
pub(crate) fn read(file: impl Read, noticed: &mut dyn FnMut(&str), sink: Sink<'_>) -> Result<(), Failed> {
    let mut file = BufReader::with_capacity(HEAD, Limited { file, left: ROW_MAX });
    let head = file.fill_buf().map_err(Failed::Io)?;
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(Failed::Broken("it is UTF-16; save it as \"CSV UTF-8\"".to_owned()));
    }
    let mark = b"\xef\xbb\xbf";
    let delimiter = delimiter(head);
    if head.starts_with(mark) {
        file.consume(mark.len());
    }
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(file);
    let mut record = ByteRecord::new();
    let mut next = |record: &mut ByteRecord| {
        reader.get_mut().get_mut().left = ROW_MAX;
        reader.read_byte_record(record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Failed::Broken(error.to_string())
            }
            csv::ErrorKind::Io(error) => Failed::Io(error),
            other => Failed::Broken(format!("{other:?}")),
        })
    };
    if !next(&mut record)? {
        return Ok(());
    }
    let columns = Columns::parse(&record);
    if !columns.has(Column::FileName) {
        let message =
            "its first line has no column FILENAME, so nothing says which recordings its rows are about";
        return Err(Failed::Broken(message.to_owned()));
    }
    for header in &columns.ignored {
        noticed(&format!("a second column {header:?} is not used"));
    }
    let mut number = 0_u64;
    while next(&mut record)? {
        number = number.saturating_add(1);
        sink(number, Row { columns: &columns, record: &record }).map_err(Failed::Stopped)?;
    }
    Ok(())
}

/// What separates the cells of the first line: of comma, semicolon and tab the one that it has most of.
fn delimiter(head: &[u8]) -> u8 {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
    let count = |separator| line.unwrap_or_default().iter().filter(|byte| **byte == separator).count();
    // The last of equals wins, hence the comma at the end.
    [b'\t', b';', b','].into_iter().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

/// A reader that fails when it was read further than allowed.
struct Limited<R> {
    file: R,
    left: usize,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let message = format!("a row is longer than {ROW_MAX} bytes; is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let wanted = buf.len().min(self.left);
        let read = self.file.read(buf.get_mut(..wanted).unwrap_or_default())?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;
    use recgate_plugin_api::ErrorCode;

    use super::*;

    /// File name and account of each row.
    fn rows(bytes: &[u8]) -> Result<Vec<(String, String)>, Failed> {
        let mut rows = Vec::new();
        read(bytes, &mut |_| {}, &mut |number, row| {
            assert_eq!(number, rows.len() as u64 + 1);
            let cell = |column| row.cell(column).unwrap_or_default().into_owned();
            rows.push((cell(Column::FileName), cell(Column::Account)));
            Ok(())
        })?;
        Ok(rows)
    }

    fn pair(name: &str, account: &str) -> (String, String) {
        (name.to_owned(), account.to_owned())
    }

    #[test]
    fn the_same_rows_are_read_whatever_saved_them() {
        let plain = "FILENAME,ACCOUNT NUMBER\na.wav,\"Doe, \"\"Jo\"\"\"\nb.wav,2\n";
        let expected = [pair("a.wav", "Doe, \"Jo\""), pair("b.wav", "2")];
        for text in [
            plain.to_owned(),
            plain.replace('\n', "\r\n"),
            plain.trim_end().to_owned(),
            format!("\u{feff}{plain}"),
            format!("\u{feff}{}", plain.replace("FILENAME", "\"FILENAME\"")),
            plain.replace("FILENAME,", "FILENAME;").replace("wav,", "wav;"),
            plain.replace("FILENAME,", "FILENAME\t").replace("wav,", "wav\t"),
            plain.replace("\nb", "\n\n\nb"),
            format!("\n{plain}"),
        ] {
            assert_eq!(rows(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        assert_eq!(rows(b"").unwrap(), []);
        assert_eq!(rows(b"FILENAME\r\n").unwrap(), []);
        assert_eq!(rows(b"FILENAME\na.wav").unwrap(), [pair("a.wav", "")]);
        assert_eq!(rows(b"ACCOUNT,FILENAME\nBj\xf6rn,a.wav\n").unwrap(), [pair("a.wav", "Björn")]);
        assert_eq!(rows(b"FILENAME,ACCOUNT\na.wav,\"two\nlines\"\n").unwrap(), [pair("a.wav", "two\nlines")]);
    }

    #[test]
    fn a_file_that_is_no_index_says_what_it_lacks() {
        for (bytes, says) in [
            (&b"R201606060001170000.wav,S20160606\n"[..], "FILENAME"),
            (b"\0\0\0", "FILENAME"),
            (b"\xff\xfeF\0I\0L\0E\0", "UTF-16"),
        ] {
            match rows(bytes) {
                Err(Failed::Broken(reason)) => assert!(reason.contains(says), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_bounded_memory() {
        let endless = io::repeat(b'x').take(64 << 20);
        let file = io::Cursor::new("FILENAME\na.wav\n\"").chain(endless);
        let mut seen = 0;
        let result = read(file, &mut |_| {}, &mut |_, _| {
            seen += 1;
            Ok(())
        });
        assert!(matches!(result, Err(Failed::Broken(reason)) if reason.contains("quote")));
        assert_eq!(seen, 1);
        // A header line, too.
        let file = io::Cursor::new("FILENAME,\"").chain(io::repeat(b'x').take(64 << 20));
        assert!(matches!(read(file, &mut |_| {}, &mut |_, _| Ok(())), Err(Failed::Broken(_))));
    }

    #[test]
    fn a_long_file_of_short_rows_is_read_to_its_end() {
        let mut text = "FILENAME,ACCOUNT\n".to_owned();
        for n in 0..100_000 {
            text.push_str(&format!("{n}.wav,{n} and some more text\n"));
        }
        assert!(text.len() > 2 * ROW_MAX);
        assert_eq!(rows(text.as_bytes()).unwrap().len(), 100_000);
    }

    #[test]
    fn the_sink_can_stop_and_errors_of_reading_are_told_apart() {
        let result = read(&b"FILENAME\na\nb\n"[..], &mut |_| {}, &mut |_, _| {
            Err(Error::new(ErrorCode::Cancelled, "enough"))
        });
        assert!(matches!(result, Err(Failed::Stopped(error)) if error.code == ErrorCode::Cancelled));
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let file = io::Cursor::new("FILENAME\na\n").chain(Bad);
        assert!(matches!(read(file, &mut |_| {}, &mut |_, _| Ok(())), Err(Failed::Io(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = rows(&bytes);
            let mut file = b"FILENAME,ACCOUNT\n".to_vec();
            file.extend(&bytes);
            let _ = rows(&file);
        }

        #[test]
        fn rows_that_were_written_are_read(
            cells in prop::collection::vec(("[a-z]{1,9}", "[a-z,;\t\"\r\n'=é ]{0,12}"), 0..20),
            windows in any::<bool>(),
        ) {
            let terminator = if windows { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
            writer.write_record(["FILENAME", "ACCOUNT"]).unwrap();
            for (name, account) in &cells {
                writer.write_record([name, account]).unwrap();
            }
            let bytes = writer.into_inner().unwrap();
            let expected: Vec<_> = cells
                .iter()
                .map(|(name, account)| pair(name, crate::text::unguarded(account)))
                .collect();
            prop_assert_eq!(rows(&bytes).unwrap(), expected);
        }
    }
}
