//! Values of arguments that are more than a number: sizes with units, ranges of sizes, codecs, acks.

use clap::ValueEnum;
use forebay::batch::Codec;
use serde::{Serialize, Serializer};

/// Kafka's `acks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// Never.
    #[value(name = "0")]
    Zero,
    /// When the leader has it.
    #[value(name = "1")]
    One,
    /// When all in-sync replicas have it.
    All,
}

impl Acks {
    /// As it stands in a produce request.
    pub fn code(self) -> i16 {
        match self {
            Acks::Zero => 0,
            Acks::One => 1,
            Acks::All => -1,
        }
    }
}

/// Sizes of records in bytes, drawn evenly; both ends are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
}

impl Sizes {
    /// All of one size.
    pub fn fixed(bytes: u64) -> Self {
        Self {
            min: bytes,
            max: bytes,
        }
    }

    /// The mean.
    pub fn mean(self) -> u64 {
        self.min.midpoint(self.max)
    }
}

/// "100", "1KiB", "64MiB", "2GiB".
pub(super) fn size(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is no size: write for instance 100, 1KiB or 64MiB");
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(refused()),
    };
    let number: u64 = number.parse().map_err(|_| refused())?;
    number.checked_mul(1 << shift).ok_or_else(refused)
}

/// "1KiB" or "100-2000".
pub(super) fn sizes(text: &str) -> Result<Sizes, String> {
    /// A record that no broker takes by default is not built either.
    const RECORD_BYTES_MAX: u64 = 64 << 20;
    let sizes = match text.split_once('-') {
        Some((min, max)) => Sizes {
            min: size(min)?,
            max: size(max)?,
        },
        None => Sizes::fixed(size(text)?),
    };
    if sizes.min > sizes.max {
        return Err(format!(
            "`{text}` is no range: write the smaller size first"
        ));
    }
    if sizes.max > RECORD_BYTES_MAX {
        return Err(format!("`{text}` is too large: use at most 64MiB"));
    }
    Ok(sizes)
}

/// Kafka's name of a codec.
pub(super) fn codec(text: &str) -> Result<Codec, String> {
    Codec::from_name(text)
        .ok_or_else(|| format!("`{text}` is no codec: use none, gzip, snappy, lz4 or zstd"))
}

/// The codec's name in the document.
pub(super) fn codec_name<S: Serializer>(codec: &Codec, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(codec.name())
}
