//! The macros that declare the tables and the words of the file.

/// Declares a table of the file: its keys with their types and defaults, for the decoder and for
/// the schema. Defaults are written in TOML.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $name:ident ($place:literal, $example:literal) {
            $( $(#[$field_meta:meta])* $field:ident : $kind:ty $( = $default:tt )? ),* $(,)?
        }
    ) => {
        #[derive(schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[schemars(default $(, extend("default" = $default))?)]
                pub $field: $crate::config::decode::Setting<$kind>,
            )*
            /// The unknown keys of this table.
            #[schemars(skip)]
            #[allow(dead_code, reason = "only some tables need their unknown keys")]
            pub unknown: $crate::config::decode::UnknownKeys,
        }

        impl $name {
            /// All keys of this table.
            pub const KEYS: &'static [&'static str] = &[
                $($crate::config::decode::key_of(stringify!($field))),*
            ];
        }

        impl $crate::config::decode::FromToml for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::decode::TomlReader<'_>,
            ) -> Option<Self> {
                let table = reader.table(value, $example)?;
                Some(Self {
                    unknown: reader.unknown_keys(table, Self::KEYS, $place),
                    $( $field: reader.take(
                        table,
                        $crate::config::decode::key_of(stringify!($field)),
                        table!(@default $($default)?),
                    ), )*
                })
            }
        }
    };
    (@default) => { None };
    (@default $default:tt) => { Some(stringify!($default)) };
}
pub(crate) use table;

/// Declares a choice between words, each with the value that it stands for.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident -> $target:ty, $kind:literal { $( $word:literal => $value:expr ),* $(,)? }
    ) => {
        $(#[$meta])*
        pub struct $name(pub $target);

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl $crate::config::decode::FromToml for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::decode::TomlReader<'_>,
            ) -> Option<Self> {
                match $crate::config::decode::word(value, reader, $kind, Self::WORDS)? {
                    $( $word => Some(Self($value)), )*
                    _ => None,
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": Self::WORDS })
            }
        }
    };
}
pub(crate) use words;
