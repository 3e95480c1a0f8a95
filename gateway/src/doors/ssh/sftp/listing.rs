//! Folders as NAME packets.
//!
//! FileZilla takes type and size from the `longname`, so that is a full `ls -l` line with exact bytes.

use std::{collections::VecDeque, fmt::Write as _};

use bytes::BytesMut;
use chrono::{DateTime, Datelike, Timelike, Utc};

use super::packet;
use crate::vfs::{Attributes, Entry, Listing, Refusal};

/// The most bytes of a NAME packet. Clients with small buffers take 256 KiB.
pub(super) const MAX_NAMES: usize = 200_000;
/// A packet is sent when it has this many entries.
const ENOUGH: u32 = 400;
/// `ls -l` shows the year instead of the time beyond half a year.
const HALF_A_YEAR: i64 = 180 * 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// An open folder's entries that haven't been sent.
pub(super) struct Pages {
    listing: Box<dyn Listing>,
    waiting: VecDeque<Entry>,
    at_end: bool,
    owner: String,
}

impl Pages {
    /// `folder` is what stat says of the folder itself; `owner` the name that all entries belong to.
    pub(super) fn new(listing: Box<dyn Listing>, folder: Attributes, owner: &str) -> Self {
        let dots = [".", ".."].map(|name| Entry { name: name.to_owned(), attributes: folder });
        Self { listing, waiting: dots.into(), at_end: false, owner: one_word(owner) }
    }

    /// The next NAME packet; `None` at the end.
    pub(super) async fn next(&mut self, id: u32) -> Result<Option<BytesMut>, Refusal> {
        let now = Utc::now().timestamp();
        let mut out = BytesMut::new();
        let mut count = 0u32;
        let mut longname = String::new();
        while count < ENOUGH {
            if self.waiting.is_empty() && !self.at_end {
                match self.listing.next_page().await {
                    Ok(page) if page.is_empty() => self.at_end = true,
                    Ok(page) => self.waiting.extend(page),
                    // What has been gathered is sent; the next request meets the error again or goes on.
                    Err(refusal) if count == 0 => return Err(refusal),
                    Err(_) => break,
                }
            }
            let Some(entry) = self.waiting.front() else { break };
            longname.clear();
            write_longname(&mut longname, entry, &self.owner, now);
            let size = 8 + entry.name.len() + longname.len() + 32;
            if count == 0 {
                out = packet::begin_names(id, (40 + size) * self.waiting.len().min(ENOUGH as usize));
            }
            if count > 0 && out.len() + size > MAX_NAMES {
                break;
            }
            packet::put_name(&mut out, &entry.name, &longname, &entry.attributes);
            self.waiting.pop_front();
            count += 1;
        }
        Ok((count > 0).then(|| packet::finish_names(out, count)))
    }
}

/// `drwxr-x---  1 owner group size Mon DD HH:MM name`, times in UTC.
pub(super) fn write_longname(out: &mut String, entry: &Entry, owner: &str, now: i64) {
    let Attributes { is_folder, size, modified } = entry.attributes;
    let mode = if is_folder { "dr-xr-x---" } else { "-r--r-----" };
    let time = DateTime::from_timestamp(modified, 0).unwrap_or_default();
    let month =
        usize::try_from(time.month0()).ok().and_then(|month| MONTHS.get(month)).copied().unwrap_or("Jan");
    // Writing to a String doesn't fail.
    let _ = write!(out, "{mode}  1 {owner} {owner} {size} {month} {day:>2} ", day = time.day());
    let age = now.saturating_sub(modified);
    let _ = if (0..HALF_A_YEAR).contains(&age) {
        write!(out, "{:02}:{:02} {}", time.hour(), time.minute(), entry.name)
    } else {
        write!(out, " {} {}", time.year(), entry.name)
    };
}

/// A name that doesn't disturb the line's columns.
pub(super) fn one_word(name: &str) -> String {
    let word: String =
        name.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
    if word.is_empty() { "recgate".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(entry: &Entry, now: i64) -> String {
        let mut out = String::new();
        write_longname(&mut out, entry, &one_word("acme corp"), now);
        out
    }

    #[test]
    fn longnames_are_lines_of_ls() {
        let attributes = Attributes { is_folder: false, size: 1_234_567_890_123, modified: 1_465_171_277 };
        let file = Entry { name: "R201606060001170000.wav".to_owned(), attributes };
        let june = "-r--r-----  1 acme_corp acme_corp 1234567890123 Jun  6 00:01 R201606060001170000.wav";
        assert_eq!(line(&file, 1_465_171_277), june);
        assert_eq!(line(&file, 1_465_171_277 + HALF_A_YEAR - 1), june);
        let year = "-r--r-----  1 acme_corp acme_corp 1234567890123 Jun  6  2016 R201606060001170000.wav";
        assert_eq!(line(&file, 1_465_171_277 + HALF_A_YEAR), year);
        assert_eq!(line(&file, 1_465_171_276), year, "the future is shown by its year");
        let folder = Entry {
            name: "Index".to_owned(),
            attributes: Attributes { is_folder: true, size: 0, modified: 1_465_257_599 },
        };
        assert_eq!(line(&folder, 1_465_257_600), "dr-xr-x---  1 acme_corp acme_corp 0 Jun  6 23:59 Index");
    }

    #[test]
    fn nonsense_times_do_not_panic() {
        for modified in [i64::MIN, i64::MAX, -1, 0] {
            let attributes = Attributes { is_folder: false, size: 0, modified };
            line(&Entry { name: "x".to_owned(), attributes }, 1_465_257_600);
        }
    }
}
