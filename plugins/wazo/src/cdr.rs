//! Call data records from a folder of JSON files.
//!
//! A file is what `GET /cdr` of wazo-call-logd answered (`{"items": […], "total": …, "filtered": …}`), an array of its
//! items, or a single item. It is parsed as a stream, item by item, and every field takes any type: a record that is
//! partly wrong costs what is wrong of it, a file that is broken costs what follows the break, and both are reported.

pub(crate) mod parse;

use std::io::{BufReader, Read};

use recgate_plugin_api::{Call, Emit, Error, ErrorCode, Item};

use crate::facts;
use crate::folder::{Folder, Regular};
use crate::media::Clock;
use crate::report::Reports;
use crate::settings::Settings;

pub(crate) use parse::{Cdr, Field, Recording};

/// Bytes that a file of records may have: some 60,000 records.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// File names that are held, to be read in their order, at once.
const NAMES_AT_ONCE: usize = 50_000;

/// Tells the facts of every record in the folder. Says whether all of them could be told for now: `false` where a
/// file can't be read, or is broken and so young that it is probably being written.
pub(crate) fn scan(
    folder: &Folder,
    settings: &Settings,
    clock: Clock,
    call: &dyn Call,
    reports: &mut Reports<'_>,
    emit: Emit<'_>,
) -> Result<bool, Error> {
    let mut told_all = true;
    let mut entries = folder.entries()?;
    loop {
        let mut names = Vec::new();
        for entry in entries.by_ref() {
            if call.is_cancelled() {
                return Err(crate::cancelled());
            }
            let raw = entry?;
            match raw.to_str() {
                Some(name) if name.ends_with(".json") => names.push(name.to_owned()),
                Some(_) => {}
                None => {
                    reports.warn(&format!("cdr_dir: {raw:?} is ignored, its name is not UTF-8; rename it"))
                }
            }
            if names.len() == NAMES_AT_ONCE {
                break;
            }
        }
        if names.is_empty() {
            return Ok(told_all);
        }
        names.sort_unstable();
        for name in names {
            if call.is_cancelled() {
                return Err(crate::cancelled());
            }
            match folder.file(&name) {
                Ok(Some(file)) => told_all &= tell(&name, file, settings, clock, call, reports, emit)?,
                Ok(None) => reports.debug(&format!("cdr_dir: {name:?} is ignored, it is not a regular file")),
                Err(error) if error.code == ErrorCode::Busy => return Err(error),
                Err(error) => {
                    told_all = false;
                    reports.warn(&error.message);
                }
            }
        }
    }
}

/// Tells the facts of one file, which may have gone. Says whether all of it could be told for now, as [`scan`] does.
pub(crate) fn tell_file(
    folder: &Folder,
    name: &str,
    settings: &Settings,
    clock: Clock,
    call: &dyn Call,
    reports: &mut Reports<'_>,
    emit: Emit<'_>,
) -> Result<bool, Error> {
    match folder.file(name) {
        Ok(Some(file)) => tell(name, file, settings, clock, call, reports, emit),
        Ok(None) => Ok(true),
        Err(error) if error.code == ErrorCode::Busy => Err(error),
        Err(error) => {
            reports.warn(&error.message);
            Ok(true)
        }
    }
}

/// Tells the facts of one file. The modification time of the file is their revision, so that of two files with the
/// same record the newer one counts.
fn tell(
    name: &str,
    regular: Regular,
    settings: &Settings,
    clock: Clock,
    call: &dyn Call,
    reports: &mut Reports<'_>,
    emit: Emit<'_>,
) -> Result<bool, Error> {
    let size = regular.stamp.size;
    if size > FILE_MAX {
        reports.warn(&format!("cdr_dir: {name:?} has {size} bytes, at most {FILE_MAX} are read; split it"));
        return Ok(true);
    }
    let revision = u64::try_from(regular.stamp.mtime_ns).unwrap_or(0);
    // One byte more than allowed, so that a file that has grown meanwhile ends in a parse error, not in silence.
    let reader = BufReader::with_capacity(64 * 1024, regular.file.take(FILE_MAX.saturating_add(1)));
    let mut problems = 0_u64;
    let read = parse::read(reader, &mut |index, item| {
        if call.is_cancelled() {
            return Err(crate::cancelled());
        }
        let mut report = |problem: &str| {
            problems = problems.saturating_add(1);
            // One line a file and kind would hide which record it is; a line a record is bounded by the scan.
            reports.warn(&format!("cdr_dir: {name:?}, item {index}: {problem}"));
        };
        match item {
            Ok(cdr) => {
                facts::of(&cdr, revision, settings, &mut report, &mut |facts| emit(Item::Facts(facts)))
            }
            Err(problem) => {
                report(&problem);
                Ok(())
            }
        }
    });
    match read {
        Ok(()) => Ok(true),
        Err(parse::Failed::Stopped(error)) => Err(error),
        Err(parse::Failed::Broken(reason)) if clock.is_young(regular.stamp.changed_ms()) => {
            reports.debug(&format!("cdr_dir: {name:?} is being written: {reason}"));
            Ok(false)
        }
        Err(parse::Failed::Broken(reason)) => {
            reports.warn(&format!("cdr_dir: {name:?} is broken, what follows is not read: {reason}"));
            Ok(true)
        }
    }
}

/// Reads a document that is no file.
#[cfg(test)]
pub(crate) fn read_for_tests(document: &[u8], sink: parse::Sink<'_>) -> Result<(), String> {
    parse::read(document, sink).map_err(|failed| match failed {
        parse::Failed::Broken(reason) => reason,
        parse::Failed::Stopped(error) => error.message,
    })
}
