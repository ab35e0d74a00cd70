//! Files as fuzz input: `directory (1 byte), name (1 byte), length (2 bytes), contents`, one after
//! the other; the last one may be shorter. Directories and names are chosen from those that mean
//! something to a broker, so that every input is a data directory that could lie there.

use crate::batches::seal_all;
use forebay::base::dir::Dir;
use forebay::io::Io;
use forebay::sim::io::{SharedWorld, SimDir, SimIo};
use std::io;

/// The directories; the first is the data directory itself.
pub const DIRECTORIES: [&str; 8] = [
    "",
    "__cluster_metadata-0",
    "__consumer_offsets-0",
    "orders-0",
    "orders-1",
    "stranger-0",
    "orders-0.0123456789abcdef-delete",
    "orders-1.0123456789abcdef-stray",
];

/// The directory that [`fn@crate::recovery`] opens, by its number.
pub const ORDERS: u8 = 3;

/// Names that stand for themselves.
const NAMES: [&str; 10] = [
    "forebay-epoch",
    ".kafka_cleanshutdown",
    "partition.metadata",
    "leader-epoch-checkpoint",
    "forebay-checkpoint",
    "00000000000000000000.log.swap",
    "00000000000000000000.index.swap",
    "00000000000000000012.log.cleaned",
    "leader-epoch-checkpoint.tmp",
    "notes.txt",
];

/// Files of a segment.
const SUFFIXES: [&str; 4] = [".log", ".index", ".timeindex", ".snapshot"];

/// Base offsets that the kept directories have, and some at the end of what there is.
const BASES: [i64; 16] = [
    0,
    1,
    2,
    3,
    12,
    24,
    30,
    36,
    48,
    54,
    60,
    100,
    1 << 31,
    (1 << 62) + 1,
    i64::MAX - 1,
    i64::MAX,
];

/// One file.
pub struct File<'a> {
    /// Where it lies, by its place in [`DIRECTORIES`].
    pub directory: u8,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub contents: &'a [u8],
}

/// The files of an input.
pub fn files(mut input: &[u8]) -> impl Iterator<Item = File<'_>> {
    std::iter::from_fn(move || {
        let (&[directory, name, high, low], rest) = input.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (contents, rest) = rest.split_at(length);
        input = rest;
        Some(File {
            directory: directory % DIRECTORIES.len() as u8,
            name: name_of(name),
            contents,
        })
    })
}

/// Appends a file to an input; false if its name is not one of those that can be chosen.
pub fn put(input: &mut Vec<u8>, directory: u8, name: &str, contents: &[u8]) -> bool {
    let Some(number) = (0..=u8::MAX).find(|number| name_of(*number) == name) else {
        return false;
    };
    let Ok(length) = u16::try_from(contents.len()) else {
        return false;
    };
    input.extend([directory, number]);
    input.extend(length.to_be_bytes());
    input.extend(contents);
    true
}

/// Puts a file on the disk, with right checksums if that is asked for.
pub fn store(world: &SharedWorld, file: &File<'_>, sealed: bool) -> io::Result<()> {
    let mut contents = file.contents.to_vec();
    if sealed {
        seal(&file.name, &mut contents);
    }
    let mut dir: Box<dyn Dir> = match DIRECTORIES[usize::from(file.directory)] {
        "" => Box::new(SimDir::root(world.clone())),
        name => SimIo::new(world.clone(), 0).open_dir(name)?,
    };
    dir.replace(&file.name, &contents)
}

fn name_of(number: u8) -> String {
    let number = usize::from(number);
    match NAMES.get(number) {
        Some(name) => (*name).to_owned(),
        None => {
            let number = number - NAMES.len();
            let base = BASES[number / SUFFIXES.len() % BASES.len()];
            format!("{base:020}{}", SUFFIXES[number % SUFFIXES.len()])
        }
    }
}

/// Sets the checksums of a file right.
fn seal(name: &str, contents: &mut Vec<u8>) {
    if name.ends_with(".log") {
        seal_all(contents);
    } else if name.ends_with(".snapshot") && contents.len() >= 6 {
        let crc = crc32c::crc32c(&contents[6..]);
        contents[2..6].copy_from_slice(&crc.to_be_bytes());
    } else if name == "forebay-checkpoint"
        && let Some(end) = contents.windows(7).position(|part| part == b"crc32c ")
    {
        contents.truncate(end);
        let crc = crc32c::crc32c(contents);
        contents.extend(format!("crc32c {crc:08x}\n").bytes());
    }
}
