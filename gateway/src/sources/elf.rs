//! Reads a plugin's descriptor from its file, so that a library is judged before any of its code runs.
//!
//! Only what that needs of ELF-64 (System V ABI, chapters 4 and 5; gABI) is here: the section with the dynamic
//! symbols, their names, and the segments that say where an address lies in the file. The file is hostile: every
//! offset is checked, every table is bounded.

use std::{fs::File, io, os::unix::fs::FileExt};

use recgate_plugin_api::abi::{DESCRIPTOR_MAGIC, LICENCE_MAX, NAME_MAX, RgDescriptor, VERSION_MAX};

/// The symbols that make a library a plugin.
pub(super) const DESCRIPTOR: &str = "rg_plugin_descriptor";
pub(super) const INIT: &str = "rg_plugin_init";

/// Section headers of a file; linkers write some forty.
const SECTIONS_MAX: u16 = 4096;
/// Bytes of the table of dynamic symbols, and of that of their names.
const TABLE_MAX: u64 = 64 << 20;

const ELF_HEADER: usize = 64;
const SECTION_HEADER: usize = 64;
const SEGMENT_HEADER: usize = 56;
const SYMBOL: usize = 24;

/// Why a file can't be read as a library.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It isn't a library for this machine.
    NotALibrary(String),
    /// It is one, but exports no such symbol.
    Missing(&'static str),
    /// It exports a descriptor that isn't one.
    Descriptor(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::NotALibrary("it is cut short".to_owned()),
            _ => Self::NotALibrary(error.to_string()),
        }
    }
}

/// The descriptor that a library exports.
pub(super) fn descriptor(file: &File) -> Result<RgDescriptor, Problem> {
    let header = Bytes(read(file, 0, ELF_HEADER as u64)?);
    check_header(&header)?;
    let symbols = dynamic_symbols(file, &header)?;
    let address = symbols.address(DESCRIPTOR).ok_or(Problem::Missing(DESCRIPTOR))?;
    symbols.address(INIT).ok_or(Problem::Missing(INIT))?;
    let bytes = at_address(file, &header, address, size_of::<RgDescriptor>() as u64)?;
    parse_descriptor(&Bytes(bytes))
}

fn check_header(header: &Bytes) -> Result<(), Problem> {
    let not = |why: &str| Err(Problem::NotALibrary(why.to_owned()));
    if header.0.get(..4) != Some(b"\x7fELF") {
        return not("it is no ELF file");
    }
    if header.0.get(4..6) != Some(&[2, 1]) {
        return not("it isn't for a 64-bit little-endian machine");
    }
    if header.u16(16) != 3 {
        return not("it is an ELF file, but no shared library");
    }
    let machine = header.u16(18);
    match OUR_MACHINE {
        Some(ours) if ours != machine => Err(Problem::NotALibrary(format!(
            "it is built for another processor (ELF machine {machine}, this is {ours})"
        ))),
        _ => Ok(()),
    }
}

/// `e_machine` of the processor that this program is built for.
const OUR_MACHINE: Option<u16> = if cfg!(target_arch = "x86_64") {
    Some(62)
} else if cfg!(target_arch = "aarch64") {
    Some(183)
} else if cfg!(target_arch = "riscv64") {
    Some(243)
} else {
    None
};

struct Symbols {
    table: Vec<u8>,
    names: Vec<u8>,
}

impl Symbols {
    /// Where a symbol that is defined here lies in memory.
    fn address(&self, wanted: &str) -> Option<u64> {
        self.table.chunks_exact(SYMBOL).map(|symbol| Bytes(symbol.to_vec())).find_map(|symbol| {
            let name = self.names.get(symbol.u32(0) as usize..)?.strip_prefix(wanted.as_bytes())?;
            let defined = symbol.u16(6) != 0;
            (name.first() == Some(&0) && defined).then(|| symbol.u64(8))
        })
    }
}

fn dynamic_symbols(file: &File, header: &Bytes) -> Result<Symbols, Problem> {
    const DYNSYM: u32 = 11;
    let count = header.u16(60);
    if usize::from(header.u16(58)) != SECTION_HEADER || count == 0 || count > SECTIONS_MAX {
        return Err(Problem::NotALibrary("it has no usable section headers; don't strip those".to_owned()));
    }
    let sections = read(file, header.u64(40), u64::from(count) * SECTION_HEADER as u64)?;
    let section = |index: usize| {
        let start = index.checked_mul(SECTION_HEADER)?;
        Some(Bytes(sections.get(start..start.checked_add(SECTION_HEADER)?)?.to_vec()))
    };
    let content = |section: &Bytes| {
        if section.u64(32) > TABLE_MAX {
            return Err(Problem::NotALibrary("its symbol table is larger than any plugin's".to_owned()));
        }
        Ok(read(file, section.u64(24), section.u64(32))?)
    };
    let found = (0..usize::from(count)).filter_map(section).find(|section| section.u32(4) == DYNSYM);
    let Some(dynsym) = found else {
        return Err(Problem::Missing(DESCRIPTOR));
    };
    let Some(dynstr) = section(dynsym.u32(40) as usize) else {
        return Err(Problem::NotALibrary("its symbols have no names".to_owned()));
    };
    Ok(Symbols { table: content(&dynsym)?, names: content(&dynstr)? })
}

/// Bytes of the file that will lie at an address.
fn at_address(file: &File, header: &Bytes, address: u64, length: u64) -> Result<Vec<u8>, Problem> {
    const LOAD: u32 = 1;
    let count = u64::from(header.u16(56));
    if usize::from(header.u16(54)) != SEGMENT_HEADER {
        return Err(Problem::NotALibrary("its program headers are wrong".to_owned()));
    }
    let segments = read(file, header.u64(32), count * SEGMENT_HEADER as u64)?;
    for segment in segments.chunks_exact(SEGMENT_HEADER).map(|segment| Bytes(segment.to_vec())) {
        let Some(within) = address.checked_sub(segment.u64(16)) else { continue };
        let fits = within.checked_add(length).is_some_and(|end| end <= segment.u64(32));
        if segment.u32(0) == LOAD && fits {
            let offset = segment.u64(8).checked_add(within);
            let offset =
                offset.ok_or_else(|| Problem::NotALibrary("its program headers are wrong".to_owned()))?;
            return Ok(read(file, offset, length)?);
        }
    }
    Err(Problem::Descriptor(format!("`{DESCRIPTOR}` isn't constant data, or is too short")))
}

fn parse_descriptor(bytes: &Bytes) -> Result<RgDescriptor, Problem> {
    let wrong = |why: String| Err(Problem::Descriptor(why));
    let magic = bytes.u64(0);
    if magic != DESCRIPTOR_MAGIC {
        return wrong(format!("its magic is {magic:#018x}, not {DESCRIPTOR_MAGIC:#018x}"));
    }
    let struct_size = bytes.u32(8);
    if (struct_size as usize) < size_of::<RgDescriptor>() {
        return wrong(format!("its struct_size is {struct_size}, less than {}", size_of::<RgDescriptor>()));
    }
    Ok(RgDescriptor {
        magic,
        struct_size,
        abi_major: bytes.u32(12),
        abi_minor: bytes.u32(16),
        reserved: bytes.u32(20),
        name: bytes.array(24),
        version: bytes.array(24 + NAME_MAX),
        licence: bytes.array(24 + NAME_MAX + VERSION_MAX),
    })
}

// The fields above are read at these places.
const _: () = assert!(size_of::<RgDescriptor>() == 24 + NAME_MAX + VERSION_MAX + LICENCE_MAX);

fn read(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    // A table can't be larger than its file, so a lie about its size costs no memory.
    let end = offset.checked_add(length);
    if end.is_none_or(|end| file.metadata().is_ok_and(|metadata| end > metadata.len())) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::UnexpectedEof)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Little-endian fields; what lies beyond the end is zero.
struct Bytes(Vec<u8>);

impl Bytes {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn judge(bytes: &[u8]) -> Result<RgDescriptor, Problem> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        descriptor(&file)
    }

    #[test]
    fn what_is_no_library_is_named() {
        let not = |bytes: &[u8], why: &str| match judge(bytes) {
            Err(Problem::NotALibrary(detail)) => assert!(detail.contains(why), "{detail:?}"),
            other => assert_eq!(format!("{other:?}"), why),
        };
        not(b"", "cut short");
        not(&[0; 100], "no ELF file");
        let mut header = [0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x01\x01");
        not(&header, "64-bit");
        header[4] = 2;
        not(&header, "no shared library");
        header[16] = 3;
        header[18] = 0xfe;
        if OUR_MACHINE.is_some() {
            not(&header, "another processor");
        }
        header[18..20].copy_from_slice(&OUR_MACHINE.unwrap_or(0).to_le_bytes());
        not(&header, "section headers");
    }

    proptest! {
        /// This very test program is an ELF file; any damage to its head gets a verdict, not a panic.
        #[test]
        fn damaged_files_get_a_verdict(at in 0_usize..64, value: u8, at2 in 16_usize..64, value2: u8) {
            let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
            program.truncate(20_000);
            program[at] = value;
            program[at2] = value2;
            prop_assert!(judge(&program).is_err());
        }
    }
}
