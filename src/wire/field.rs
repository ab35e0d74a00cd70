//! How each type that a message table may name lies on the wire.
//!
//! Structs get their [`Field`] from the table; everything else is here. Invariant: `size_min` never
//! exceeds what `write` produces, because it is what bounds the counts of arrays.

use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use uuid::Uuid;

use super::{Malformed, Message, Reader, Writer};
#[cfg(test)]
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Few, TopicId, limits};

/// What decides the form of a field: the message's version and the field's nullability in it.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    pub(super) version: i16,
    pub(super) flexible: bool,
    pub(super) nullable: bool,
}

impl Encoding {
    pub(super) fn of<M: Message>(version: i16) -> Self {
        Self {
            version,
            flexible: version >= M::FLEXIBLE_FROM,
            nullable: false,
        }
    }

    /// The same for a field that may, or may not, be null.
    pub(super) fn nullable(self, nullable: bool) -> Self {
        Self { nullable, ..self }
    }
}

/// A type that can stand in a message table.
pub trait Field: Sized {
    /// The schema's default where the table names none: zero or empty, never null.
    fn initial() -> Self;

    /// Bytes of the shortest encoding.
    fn size_min(encoding: Encoding) -> usize;

    /// Takes a value off the front.
    fn read(reader: &mut Reader, encoding: Encoding) -> Result<Self, Malformed>;

    /// Appends the value.
    fn write(&self, writer: &mut Writer, encoding: Encoding);

    /// A random value that the encoding can hold.
    #[cfg(test)]
    fn sample(prng: &mut Prng, encoding: Encoding) -> Self;
}

/// A type with a form for "no value".
pub trait Nullable: Field {
    /// Takes a value or null off the front.
    fn read_nullable(reader: &mut Reader, encoding: Encoding) -> Result<Option<Self>, Malformed>;

    /// Appends the value or null.
    fn write_nullable(value: Option<&Self>, writer: &mut Writer, encoding: Encoding);
}

/// A struct of a message table.
pub trait Structure: Field {}

/// What a fetch response carries for one partition: record batches as they lie on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Records {
    /// No value at all; differs from empty.
    #[default]
    Null,
    /// Batches in memory.
    Bytes(Bytes),
    /// Batches that somebody else puts into the stream: only the length is written, and a
    /// [`Gap`](super::Gap) with this tag is left behind it.
    External {
        /// Comes back in the gap.
        tag: u32,
        /// Bytes to leave room for.
        length: u32,
    },
}

/// Numbers and other values of a fixed size: type, bytes, how to read and write the bytes, and a
/// sample from 64 random bits.
macro_rules! fixed {
    ($($type:ty, $size:literal, $read:expr, $write:expr, $sample:expr;)*) => {$(
        impl Field for $type {
            fn initial() -> Self {
                Self::default()
            }

            fn size_min(_: Encoding) -> usize {
                $size
            }

            fn read(reader: &mut Reader, _: Encoding) -> Result<Self, Malformed> {
                let read: fn([u8; $size]) -> Self = $read;
                reader.array().map(read)
            }

            fn write(&self, writer: &mut Writer, _: Encoding) {
                let write: fn(Self) -> [u8; $size] = $write;
                writer.bytes.put_slice(&write(*self));
            }

            #[cfg(test)]
            fn sample(prng: &mut Prng, _: Encoding) -> Self {
                let sample: fn(u64) -> Self = $sample;
                sample(prng.next_u64())
            }
        }
    )*};
}

fixed! {
    bool, 1, |[byte]| byte != 0, |value| [value.into()], |bits| bits & 1 == 1;
    i8, 1, i8::from_be_bytes, i8::to_be_bytes, |bits| bits as i8;
    i16, 2, i16::from_be_bytes, i16::to_be_bytes, |bits| bits as i16;
    i32, 4, i32::from_be_bytes, i32::to_be_bytes, |bits| bits as i32;
    i64, 8, i64::from_be_bytes, i64::to_be_bytes, |bits| bits as i64;
    Uuid, 16, Uuid::from_bytes, Uuid::into_bytes, |bits| Uuid::from_u64_pair(bits, !bits);
    TopicId, 16, |bytes| TopicId(Uuid::from_bytes(bytes)), |id| id.0.into_bytes(),
        |bits| TopicId(Uuid::from_u64_pair(bits, !bits));
    ErrorCode, 2, |bytes| ErrorCode::from_code(i16::from_be_bytes(bytes)),
        |code| code.code().to_be_bytes(), |bits| ErrorCode::from_code((bits % 104) as i16);
}

/// Types whose first part is a length that has a form for null.
macro_rules! nullable {
    ($($type:ty, $size_min:expr, $missing:literal, $sample:expr;)*) => {$(
        impl Field for $type {
            fn initial() -> Self {
                Self::new()
            }

            fn size_min(encoding: Encoding) -> usize {
                if encoding.flexible { 1 } else { $size_min }
            }

            fn read(reader: &mut Reader, encoding: Encoding) -> Result<Self, Malformed> {
                Self::read_nullable(reader, encoding)?.ok_or(Malformed($missing))
            }

            fn write(&self, writer: &mut Writer, encoding: Encoding) {
                Self::write_nullable(Some(self), writer, encoding);
            }

            #[cfg(test)]
            fn sample(prng: &mut Prng, _: Encoding) -> Self {
                const ALPHABET: [char; 8] = ['a', 'b', 'Z', '0', '-', '.', 'ß', '語'];
                let length = prng.below(12);
                let text = (0..length).map(|_| ALPHABET[prng.below(8) as usize]).collect();
                let sample: fn(String) -> Self = $sample;
                sample(text)
            }
        }
    )*};
}

nullable! {
    String, 2, "null string", |text| text;
    ByteString, 2, "null string", ByteString::from;
    Bytes, 4, "null bytes", Bytes::from;
}

impl Nullable for String {
    fn read_nullable(reader: &mut Reader, encoding: Encoding) -> Result<Option<Self>, Malformed> {
        let length = reader.string_length(encoding.flexible)?;
        length.map(|length| reader.string(length)).transpose()
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, encoding: Encoding) {
        writer.string(value.map(String::as_str), encoding.flexible);
    }
}

impl Nullable for ByteString {
    fn read_nullable(reader: &mut Reader, encoding: Encoding) -> Result<Option<Self>, Malformed> {
        let length = reader.string_length(encoding.flexible)?;
        length.map(|length| reader.byte_string(length)).transpose()
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, encoding: Encoding) {
        writer.string(value.map(|text| &**text), encoding.flexible);
    }
}

impl Nullable for Bytes {
    fn read_nullable(reader: &mut Reader, encoding: Encoding) -> Result<Option<Self>, Malformed> {
        let length = reader.length(encoding.flexible)?;
        length.map(|length| reader.slice(length)).transpose()
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, encoding: Encoding) {
        writer.length(value.map(Bytes::len), encoding.flexible);
        writer
            .bytes
            .put_slice(value.map_or(&[], |bytes| &bytes[..]));
    }
}

/// Arrays, by the list that holds their elements.
macro_rules! arrays {
    ($($list:ident),*) => {$(
        impl<T: Field> Field for $list<T> {
            fn initial() -> Self {
                Self::new()
            }

            fn size_min(encoding: Encoding) -> usize {
                if encoding.flexible { 1 } else { 4 }
            }

            fn read(reader: &mut Reader, encoding: Encoding) -> Result<Self, Malformed> {
                Self::read_nullable(reader, encoding)?.ok_or(Malformed("null array"))
            }

            fn write(&self, writer: &mut Writer, encoding: Encoding) {
                Self::write_nullable(Some(self), writer, encoding);
            }

            #[cfg(test)]
            fn sample(prng: &mut Prng, encoding: Encoding) -> Self {
                let encoding = encoding.nullable(false);
                let count = prng.below(4);
                (0..count).map(|_| T::sample(prng, encoding)).collect()
            }
        }

        impl<T: Field> Nullable for $list<T> {
            fn read_nullable(
                reader: &mut Reader,
                encoding: Encoding,
            ) -> Result<Option<Self>, Malformed> {
                let Some(count) = reader.length(encoding.flexible)? else {
                    return Ok(None);
                };
                let encoding = encoding.nullable(false);
                if count > reader.remaining() / T::size_min(encoding).max(1) {
                    return Err(Malformed("array count beyond the message"));
                }
                reader.charge(count, size_of::<T>())?;
                let mut elements = Self::with_capacity(count.min(limits::ARRAY_RESERVE_MAX));
                for _ in 0..count {
                    elements.push(T::read(reader, encoding)?);
                }
                Ok(Some(elements))
            }

            fn write_nullable(value: Option<&Self>, writer: &mut Writer, encoding: Encoding) {
                writer.length(value.map($list::len), encoding.flexible);
                for element in value.into_iter().flatten() {
                    element.write(writer, encoding.nullable(false));
                }
            }
        }
    )*};
}

arrays!(Vec, Few);

impl<T: Structure> Nullable for T {
    fn read_nullable(reader: &mut Reader, encoding: Encoding) -> Result<Option<Self>, Malformed> {
        let [present] = reader.array()?.map(u8::cast_signed);
        if present < 0 {
            return Ok(None);
        }
        T::read(reader, encoding).map(Some)
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, encoding: Encoding) {
        writer.bytes.put_i8(if value.is_some() { 1 } else { -1 });
        if let Some(value) = value {
            value.write(writer, encoding);
        }
    }
}

/// Where the version has no null, null is written as the empty value.
impl<T: Nullable> Field for Option<T> {
    fn initial() -> Self {
        Some(T::initial())
    }

    fn size_min(_: Encoding) -> usize {
        // Null is the shortest form of all, and a byte in the shortest of its forms.
        1
    }

    fn read(reader: &mut Reader, encoding: Encoding) -> Result<Self, Malformed> {
        if encoding.nullable {
            T::read_nullable(reader, encoding)
        } else {
            T::read(reader, encoding).map(Some)
        }
    }

    fn write(&self, writer: &mut Writer, encoding: Encoding) {
        match self {
            _ if encoding.nullable => T::write_nullable(self.as_ref(), writer, encoding),
            Some(value) => value.write(writer, encoding),
            None => T::initial().write(writer, encoding),
        }
    }

    #[cfg(test)]
    fn sample(prng: &mut Prng, encoding: Encoding) -> Self {
        if encoding.nullable && prng.percent(30) {
            return None;
        }
        Some(T::sample(prng, encoding))
    }
}

impl Field for Records {
    fn initial() -> Self {
        Self::Null
    }

    fn size_min(_: Encoding) -> usize {
        1
    }

    fn read(reader: &mut Reader, encoding: Encoding) -> Result<Self, Malformed> {
        let bytes = Bytes::read_nullable(reader, encoding)?;
        Ok(bytes.map_or(Self::Null, Self::Bytes))
    }

    fn write(&self, writer: &mut Writer, encoding: Encoding) {
        match self {
            Self::Null => Bytes::write_nullable(None, writer, encoding),
            Self::Bytes(bytes) => Bytes::write_nullable(Some(bytes), writer, encoding),
            Self::External { tag, length } => {
                writer.length(Some(*length as usize), encoding.flexible);
                writer.leave_gap(*tag, *length);
            }
        }
    }

    #[cfg(test)]
    fn sample(prng: &mut Prng, encoding: Encoding) -> Self {
        Option::sample(prng, encoding.nullable(true)).map_or(Self::Null, Self::Bytes)
    }
}
