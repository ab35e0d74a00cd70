//! The macro behind every message table: [`messages`](macro@messages). One table row says all there
//! is to know about a field, and struct, default, decoder and encoder come from it.
//!
//! ```text
//! messages! {
//!     /// What the message is for.
//!     request FetchRequest -> FetchResponse
//!     (key 1, versions 4..=18, flexible 12..) {
//!         /// What the field means, where its name cannot say it.
//!         replica_id: i32 = -1 => 0..=14;
//!         topics: Vec<FetchTopic> => 0..;
//!         ..tagged {
//!             0 => cluster_id: Option<String> = None => 12.., null 12..;
//!         }
//!     }
//!
//!     struct FetchTopic { ... }
//! }
//! ```
//!
//! - A row is `name: type = default => versions, null versions;` in the order of the wire. Without
//!   a default the field starts as zero or empty; nullable ones too, unless they say `None`.
//! - `..tagged` holds the tagged fields (KIP-482), `tag => row`, by ascending tag. They are written
//!   where they differ from their default.
//! - Kinds: `request` (with key and response), `message` (a response, or a record without a key),
//!   `record` (a stored record, with key), `struct` (a part of the others). `flexible never` for
//!   messages without compact form.
//!
//! Versions are those of the message, for structs too. Every row is one step of expansion; nothing
//! recurses over a table, so that sixty of them compile quickly.

/// Declares messages and their structs; see the module.
macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        $kind:ident $name:ident $(-> $response:ident)? $(($($head:tt)*))? { $($body:tt)* }
    )*) => {$(
        $crate::wire::table::message!($kind $name $(-> $response)? $($($head)*)?);
        $crate::wire::table::structure!($(#[$meta])* $name $($body)*);
    )*};
}

/// What the head of a table entry adds to its struct.
macro_rules! message {
    (struct $name:ident) => {};
    (request $name:ident -> $response:ident key $key:literal, $($head:tt)*) => {
        $crate::wire::table::message!(message $name $($head)*);

        impl $crate::wire::Request for $name {
            const KEY: i16 = $key;
            type Response = $response;
        }
    };
    (record $name:ident key $key:literal, $($head:tt)*) => {
        $crate::wire::table::message!(message $name $($head)*);

        impl $crate::wire::records::Record for $name {
            const KEY: i16 = $key;
        }
    };
    (message $name:ident versions $versions:expr, flexible $($from:tt)*) => {
        impl $crate::wire::Message for $name {
            const NAME: &'static str = stringify!($name);
            const VERSIONS: std::ops::RangeInclusive<i16> = $versions;
            const FLEXIBLE_FROM: i16 = $crate::wire::table::flexible_from!($($from)*);
        }
    };
}

/// The first flexible version.
macro_rules! flexible_from {
    (never) => {
        i16::MAX
    };
    ($from:literal ..) => {
        $from
    };
}

/// The struct of a table entry with its default, decoder and encoder.
macro_rules! structure {
    (
        $(#[$meta:meta])*
        $name:ident
        $(
            $(#[$field_meta:meta])*
            $field:ident: $type:ty $(= $default:expr)? => $versions:expr $(, null $null:expr)?;
        )*
        $(..tagged {$(
            $(#[$tagged_meta:meta])*
            $tag:literal => $tagged:ident: $tagged_type:ty $(= $tagged_default:expr)?
                => $tagged_versions:expr $(, null $tagged_null:expr)?;
        )*})?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[doc = concat!("\n\nVersions `", stringify!($versions), "`.")]
                pub $field: $type,
            )*
            $($(
                $(#[$tagged_meta])*
                #[doc = concat!("\n\nTag ", $tag, ", versions `", stringify!($tagged_versions), "`.")]
                pub $tagged: $tagged_type,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::wire::table::initial!($type $(, $default)?),)*
                    $($($tagged: $crate::wire::table::initial!($tagged_type $(, $tagged_default)?),)*)?
                }
            }
        }

        impl $crate::wire::field::Structure for $name {}

        impl $crate::wire::field::Field for $name {
            fn initial() -> Self {
                Self::default()
            }

            fn size_min(encoding: $crate::wire::field::Encoding) -> usize {
                let version = encoding.version;
                let mut size = usize::from(encoding.flexible);
                $(if ($versions).contains(&version) {
                    size += <$type as $crate::wire::field::Field>::size_min(encoding);
                })*
                size
            }

            fn read(
                reader: &mut $crate::wire::Reader,
                encoding: $crate::wire::field::Encoding,
            ) -> Result<Self, $crate::wire::Malformed> {
                use $crate::wire::field::Field;
                let version = encoding.version;
                let mut this = Self::default();
                $(if ($versions).contains(&version) {
                    let null = $crate::wire::table::null!(version $(, $null)?);
                    this.$field = Field::read(reader, encoding.nullable(null))?;
                })*
                if encoding.flexible {
                    reader.tagged_fields(|tag, _reader| match tag {
                        $($($tag if ($tagged_versions).contains(&version) => {
                            let null = $crate::wire::table::null!(version $(, $tagged_null)?);
                            this.$tagged = Field::read(_reader, encoding.nullable(null))?;
                            Ok(true)
                        })*)?
                        _ => Ok(false),
                    })?;
                }
                Ok(this)
            }

            fn write(
                &self,
                writer: &mut $crate::wire::Writer,
                encoding: $crate::wire::field::Encoding,
            ) {
                use $crate::wire::field::Field;
                let version = encoding.version;
                $(if ($versions).contains(&version) {
                    let null = $crate::wire::table::null!(version $(, $null)?);
                    Field::write(&self.$field, writer, encoding.nullable(null));
                })*
                if encoding.flexible {
                    #[allow(unused_mut, reason = "most structs have no tagged fields")]
                    let mut tagged = $crate::wire::writer::TaggedFields::default();
                    $($(
                        let default = $crate::wire::table::initial!($tagged_type $(, $tagged_default)?);
                        if ($tagged_versions).contains(&version) && self.$tagged != default {
                            let null = $crate::wire::table::null!(version $(, $tagged_null)?);
                            tagged.add($tag, |writer| {
                                Field::write(&self.$tagged, writer, encoding.nullable(null));
                            });
                        }
                    )*)?
                    writer.tagged_fields(&tagged);
                }
            }

            #[cfg(test)]
            fn sample(
                prng: &mut $crate::base::prng::Prng,
                encoding: $crate::wire::field::Encoding,
            ) -> Self {
                use $crate::wire::field::Field;
                let version = encoding.version;
                let mut this = Self::default();
                $(if ($versions).contains(&version) {
                    let null = $crate::wire::table::null!(version $(, $null)?);
                    this.$field = Field::sample(prng, encoding.nullable(null));
                })*
                $($(if ($tagged_versions).contains(&version) {
                    let null = $crate::wire::table::null!(version $(, $tagged_null)?);
                    this.$tagged = Field::sample(prng, encoding.nullable(null));
                })*)?
                this
            }
        }
    };
}

/// The default a row names, or the one of its type.
macro_rules! initial {
    ($type:ty) => {
        <$type as $crate::wire::field::Field>::initial()
    };
    ($type:ty, $default:expr) => {
        $default
    };
}

/// Whether a field may be null in a version.
macro_rules! null {
    ($version:ident) => {
        false
    };
    ($version:ident, $null:expr) => {
        ($null).contains(&$version)
    };
}

pub(crate) use {flexible_from, initial, message, messages, null, structure};
